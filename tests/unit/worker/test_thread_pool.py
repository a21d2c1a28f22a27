"""The slots of a pool of threads: each task runs once, and no more at a time than there are slots."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.worker.dispatch.thread_pool import ThreadSlots
from tests.conftest import Eventually


def request(run: Any) -> Any:
    return SimpleNamespace(run_in_thread=run, name="kind", id="1")


def test_each_task_runs_once_and_no_task_waits_for_good(eventually: Eventually) -> None:
    """Tasks come one by one, often at the moment when a thread returns to the executor."""
    ran: Counter[int] = Counter()
    with ThreadPoolExecutor(3) as executor:
        pull = ThreadSlots(executor, 3, InFlightMessages())
        for n in range(5000):
            pull.submit(request(lambda n=n: ran.update([n])))
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

    with ThreadPoolExecutor(8) as executor:
        pull = ThreadSlots(executor, 2, InFlightMessages())
        for _ in range(6):
            pull.submit(request(hold))
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

    with ThreadPoolExecutor(1) as executor:
        pull = ThreadSlots(executor, 1, InFlightMessages())
        failing = request(fail)
        failing.redeliver = lambda why: again.append(getattr(why.exception, "exc", why.exception))
        pull.submit(failing)
        pull.submit(request(fail))  # and cannot be let go either
        pull.submit(request(done.set))
        eventually(done.is_set)
    assert again == [error]
