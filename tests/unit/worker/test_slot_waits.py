"""What a slot waits for: its turn at a lock or at a connection, the work of others, a pipe; real waits."""

import fcntl
import os
import subprocess
import sys
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
from tests.harness.sampled_slots import Slots, largest_place, main_place, sample_until


def released(held: Any, by: str, stop: threading.Event) -> Any:
    """Return a queue or a semaphore, which another thread releases at the end of the test."""

    def release() -> None:
        stop.wait(60)
        getattr(held, by)(1)

    threading.Thread(target=release, daemon=True).start()
    return held


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


@pytest.mark.parametrize(
    ("waits", "category"),
    [
        (lambda stop: ThreadPoolExecutor(1).submit(stop.wait).result(60), "thread"),
        (lambda stop: stop.wait(60), "thread"),
        (lambda stop: released(Queue(), "put", stop).get(timeout=60), "thread"),
        (lambda stop: released(threading.Semaphore(0), "release", stop).acquire(timeout=60), "lock"),
        (lambda stop: enter_held(threading.BoundedSemaphore(1), stop), "lock"),
        (lambda stop: enter_held(threading.Condition(), stop), "lock"),
    ],
    ids=["a future", "an event", "a queue", "a semaphore", "a bounded semaphore", "to enter a condition"],
)
def test_work_of_other_threads_is_told_from_a_lock(
    slots: Slots, waits: Callable[[threading.Event], object], category: str
) -> None:
    """A slot waits for its turn, or for another thread: only the first is a lock, which more slots share."""
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


def test_processes_of_a_handler_that_compute_count_as_computing(slots: Slots) -> None:
    """A slot that waits for an event of its threads, whose child program computes, is computing."""
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as child:
        slots.run(lambda: threading.Thread(target=child.wait).start() or threading.Event().wait(60))
        try:
            sample_until(slots, lambda places: largest_place(places).name == "child programs")
        finally:
            child.kill()


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
    for n in range(10_000):
        slot_times.add_samples(places, Counter({f"place:{n}": 7}))
        sent += sum((places - before).values())
        before = places.copy()
    assert len(places) <= slot_times.MOST_KEPT + 1
    assert sent == 7 * 10_000
