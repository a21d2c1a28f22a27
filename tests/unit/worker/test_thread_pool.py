"""The slots of a pool of threads: each task runs once, and no more at a time than there are slots."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.worker.dispatch import thread_pool
from millpond.worker.dispatch.thread_pool import ThreadSlots
from tests.conftest import Eventually


def request(run: Any) -> Any:
    return SimpleNamespace(run_in_thread=run, name="kind", id="1")


@contextmanager
def thread_slots(slots: int, *, threads: int) -> Iterator[ThreadSlots]:
    """Slots in an executor of some threads, stopped and shut down at the end of the block."""
    with ThreadPoolExecutor(threads) as executor:
        pool = ThreadSlots(executor, slots, InFlightMessages())
        yield pool
        pool.stop()


def test_each_task_runs_once_and_no_task_waits_for_good(
    eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks come one by one, often at the moment when a thread returns to the executor."""
    monkeypatch.setattr(thread_pool, "LINGER_SECONDS", 0.00005)
    ran: Counter[int] = Counter()
    with thread_slots(3, threads=3) as pool:
        for n in range(5000):
            pool.submit(request(lambda n=n: ran.update([n])))
            if n % 7 == 0:
                eventually(lambda n=n: ran[n], every_seconds=0)
        eventually(lambda: len(ran) == 5000)
    assert set(ran.values()) == {1}


def test_no_more_tasks_run_at_a_time_than_there_are_slots(eventually: Eventually) -> None:
    """This holds even if the executor has more threads."""
    gate, running = threading.Event(), []

    def hold() -> None:
        running.append(1)
        gate.wait(30)

    with thread_slots(2, threads=8) as pool:
        for _ in range(6):
            pool.submit(request(hold))
        eventually(lambda: len(running) == 2)
        assert not [n for n in range(50) if len(running) > 2]
        gate.set()
        eventually(lambda: len(running) == 6)


@pytest.mark.parametrize("error", [RuntimeError("no way to settle"), WorkerShutdown(0)], ids=repr)
def test_a_task_that_cannot_be_settled_is_redelivered_and_its_slot_goes_on(
    eventually: Eventually, error: BaseException
) -> None:
    """An error that reaches the thread is logged, and the message redelivered.

    Celery's `WorkerShutdown` is no `Exception`, and it does not end the slot either.
    """
    done, again = threading.Event(), []

    def fail() -> None:
        raise error

    with thread_slots(1, threads=1) as pool:
        failing = request(fail)
        failing.redeliver = lambda why: again.append(getattr(why.exception, "exc", why.exception))
        pool.submit(failing)
        pool.submit(request(fail))  # and cannot be let go either
        pool.submit(request(done.set))
        eventually(done.is_set)
    assert again == [error]


def test_a_task_wakes_one_idle_thread_and_the_last_one_first(eventually: Eventually) -> None:
    """The same thread runs tasks that come one by one, although all threads of the pool are idle."""
    gate, threads = threading.Barrier(4), []

    def note() -> None:
        threads.append(threading.get_ident())

    with thread_slots(3, threads=3) as pool:
        for _ in range(3):
            pool.submit(request(gate.wait))
        gate.wait(30)  # all three threads have run a task
        eventually(lambda: len(pool._idle) == 3)
        for n in range(100):
            pool.submit(request(note))
            eventually(lambda n=n: len(threads) == n + 1 and len(pool._idle) == 3, every_seconds=0)
    assert len(set(threads)) == 1


def test_idle_threads_return_to_the_executor_when_the_slots_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a process ends at once. A task that waits still runs, and its thread returns after it."""
    monkeypatch.setattr(thread_pool, "LINGER_SECONDS", 20)
    started, gate, ran = threading.Event(), threading.Event(), []

    def hold() -> None:
        started.set()
        gate.wait(30)

    executor = ThreadPoolExecutor(2)
    pool = ThreadSlots(executor, 2, InFlightMessages())
    for run in (hold, hold, lambda: ran.append(1)):
        pool.submit(request(run))
    assert started.wait(30)
    pool.stop()
    gate.set()
    shutdown = threading.Thread(target=executor.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(10)
    assert (ran, shutdown.is_alive()) == ([1], False)


def test_a_thread_that_is_idle_already_returns_when_the_slots_stop(
    eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "LINGER_SECONDS", 20)
    executor, ended = ThreadPoolExecutor(1), threading.Event()
    pool = ThreadSlots(executor, 1, InFlightMessages())
    pool.submit(request(lambda: None))
    eventually(lambda: len(pool._idle) == 1)
    pool.stop()
    executor.submit(ended.set)
    assert ended.wait(10), "the executor has no other thread"
    executor.shutdown()
