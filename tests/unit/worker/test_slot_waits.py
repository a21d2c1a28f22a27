"""What a slot waits for: its turn at a lock or at a connection, the work of others, a pipe; real waits."""

import asyncio
import ctypes
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from millpond.worker.report import slot_times
from tests.harness.sampled_slots import Slots, main_place


def afterwards(stop: threading.Event, act: Callable[[], object]) -> None:
    """Call a function in another thread at the end of the test."""
    threading.Thread(target=lambda: (stop.wait(60), act()), daemon=True).start()


def wait_for_queue(stop: threading.Event) -> None:
    """Wait for an item that another thread puts into a queue."""
    queue = Queue[int]()
    afterwards(stop, lambda: queue.put(1))
    queue.get(timeout=60)


def acquire_held(lock: Any, stop: threading.Event, timeout: float) -> None:
    """Acquire a lock or a semaphore that is taken until the end of the test."""
    lock.acquire()
    afterwards(stop, lock.release)
    lock.acquire(timeout=timeout)


def wait_in_c_code(stop: threading.Event) -> None:
    """Wait inside a C library, which another thread wakes."""
    semaphore, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.sem_init(semaphore, 0, 0)
    afterwards(stop, lambda: libc.sem_post(semaphore))
    libc.sem_wait(semaphore)


def wait_for_eventfd(stop: threading.Event) -> None:
    """Wait until another thread writes to an eventfd."""
    event = os.eventfd(0)
    afterwards(stop, lambda: os.eventfd_write(event, 1))
    os.read(event, 8)


def enter_held(lock: Any, stop: threading.Event) -> None:
    """Enter a lock that another thread holds until the end of the test."""
    is_held = threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            stop.wait(60)

    threading.Thread(target=hold, daemon=True).start()
    is_held.wait(60)
    with lock:
        pass


#: A slot that waits, until an event is set at the latest, and the category of its place.
WAITS: dict[str, tuple[Callable[[threading.Event], object], str]] = {
    "a future": (lambda stop: ThreadPoolExecutor(1).submit(stop.wait).result(60), "thread"),
    "an event": (lambda stop: stop.wait(60), "thread"),
    "a queue": (wait_for_queue, "thread"),
    "C code": (wait_in_c_code, "thread"),
    "an eventfd": (wait_for_eventfd, "thread"),
    "a thread of an event loop": (lambda stop: asyncio.run(asyncio.to_thread(stop.wait)), "thread"),
    "a timer of an event loop": (lambda _: asyncio.run(asyncio.sleep(5)), "sleep"),
    "a lock": (lambda stop: acquire_held(threading.Lock(), stop, -1), "lock"),
    "a lock with a time-out": (lambda stop: acquire_held(threading.Lock(), stop, 60), "lock"),
    "a semaphore": (lambda stop: acquire_held(threading.Semaphore(1), stop, 60), "lock"),
    "to enter a bounded semaphore": (lambda stop: enter_held(threading.BoundedSemaphore(1), stop), "lock"),
    "to enter a condition": (lambda stop: enter_held(threading.Condition(), stop), "lock"),
}


@pytest.mark.parametrize("what", WAITS)
def test_work_of_other_threads_is_told_from_a_lock(slots: Slots, what: str) -> None:
    """A slot waits for its turn, or for another thread: only the first is a lock, which more slots share."""
    waits, category = WAITS[what]
    stop = threading.Event()
    slots.run(lambda: waits(stop))
    place = main_place(slots)
    stop.set()
    assert (place.category, place.name) == (category, "")


def test_a_pool_of_connections_is_named(slots: Slots) -> None:
    """A slot that waits for one of a library's connections names the pool, not a lock of the process."""

    def ask() -> None:
        with suppress(HTTPError):
            pool.urlopen("GET", "/", pool_timeout=60, retries=False)

    pool = HTTPConnectionPool("127.0.0.1", 9, maxsize=1, block=True)
    taken = pool._get_conn()
    slots.run(ask)
    place = main_place(slots)
    pool._put_conn(taken)
    assert (place.category, place.name) == ("lock", "the connection pool of urllib3")


def test_a_pipe_that_nobody_reads_is_named(slots: Slots, tmp_path: Path) -> None:
    """A slot that writes to a full pipe, as that of a slow log, names it."""
    path = tmp_path / "log-pipe"
    os.mkfifo(path)

    def write() -> None:
        with suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            pipe.write(b"x" * 1_000_000)

    with path.open("r+b", buffering=0):
        slots.run(write)
        place = main_place(slots)
    assert (place.category, place.name) == ("peer", str(path))


def test_the_lock_of_a_file_is_named(slots: Slots, tmp_path: Path) -> None:
    """A slot that waits for the lock of a file names the file."""
    path = tmp_path / "stock.lock"
    with path.open("a") as ours, path.open("a") as theirs:
        fcntl.flock(ours, fcntl.LOCK_EX)
        slots.run(lambda: fcntl.flock(theirs, fcntl.LOCK_EX))
        places = slots.places(0.6)
        fcntl.flock(ours, fcntl.LOCK_UN)
    found = max(places, key=lambda place: places[place])
    assert (found.category, found.name) == ("lock", str(path))


def test_a_child_remembers_a_bounded_number_of_places() -> None:
    """A prefork child whose handlers ask a new peer each time stays as small, and its parent misses none."""
    places: Counter[str] = Counter()
    sent, before = 0, Counter[str]()
    for n in range(3 * slot_times.MOST_KEPT):
        slot_times.add_samples(places, Counter({f"place:{n}": 7}))
        sent += sum((places - before).values())
        before = places.copy()
    assert len(places) <= slot_times.MOST_KEPT + 1
    assert sent == 7 * 3 * slot_times.MOST_KEPT
