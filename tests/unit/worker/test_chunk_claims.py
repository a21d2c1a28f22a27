"""Worker and child claim the tasks of a chunk: each is claimed once, and claims of a dead child stay."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import pytest

from millpond.broker.delivery import Delivery, delivery_fields
from millpond.broker.outcomes import DeadLetter
from millpond.worker.celery import slot
from millpond.worker.dispatch import chunk_job
from millpond.worker.dispatch.chunk_job import RESULT_BYTES, ChunkMemory, make_memories
from tests.harness.manual_consumer import delivery_of


def in_a_child(act: Callable[[], None]) -> int:
    """Run a function in a forked child, and return the exit code."""
    child = get_context("fork").Process(target=act)
    child.start()
    child.join(20)
    assert child.exitcode is not None
    return child.exitcode


def test_a_child_claims_from_the_front_and_the_worker_reclaims_the_rest() -> None:
    """A task that one of the two has claimed cannot be claimed by the other."""
    shared = ChunkMemory(0)
    shared.offer_chunk(5)

    def start_two() -> None:
        shared.begin_chunk()
        for number in range(2):
            assert shared.claim_task()
            shared.keep_result(("result", number))

    assert in_a_child(start_two) == 0
    assert shared.reclaim_unstarted() == 3
    assert shared.reclaim_unstarted() == 0
    assert not shared.claim_task()
    assert shared.read_results() == [("result", 0), ("result", 1)]
    assert shared.read_results() == []


def test_each_task_of_a_chunk_is_run_as_one_that_was_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result says whether the result backend took it, which the child's delivery alone knows."""
    shared = ChunkMemory(0)
    monkeypatch.setattr(chunk_job, "_memories", [shared])
    shared.offer_chunk(2)

    def run(delivery: Delivery) -> Any:
        delivery.needs_notice = delivery.token == "2/0"
        return DeadLetter("Away", delivery.token), 0.5, 0.1

    monkeypatch.setattr(slot, "run_delivery", run)
    tasks = [delivery_fields(delivery_of(token)) for token in ("1/0", "2/0")]
    results = chunk_job.run_chunk(0, tasks)
    assert [(outcome.error, outcome.needs_notice) for outcome, *_ in results] == [
        ("1/0", False),
        ("2/0", True),
    ]
    assert shared.read_results() == results


def test_claims_at_the_same_time_take_each_task_once() -> None:
    """A child and a worker that claim as fast as they can have all tasks together, and none twice."""
    shared = ChunkMemory(0)
    for _ in range(5):
        shared.offer_chunk(500)
        child = get_context("fork").Process(target=_claim_all, args=(shared,))
        child.start()
        taken = 0
        while child.is_alive():
            taken += shared._unstarted.acquire(False)
        child.join()
        assert taken + len(shared.read_results()) == 500


def _claim_all(shared: ChunkMemory) -> None:
    shared.begin_chunk()
    while shared.claim_task():
        shared.keep_result(None)


def test_the_claims_of_a_killed_child_stay() -> None:
    """It ended one task and was killed in the next: the other three were not started."""
    shared = ChunkMemory(0)
    shared.offer_chunk(5)

    def die_in_the_second() -> None:
        shared.begin_chunk()
        shared.claim_task()
        shared.keep_result("done")
        shared.claim_task()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(die_in_the_second) == -signal.SIGKILL
    assert (shared.reclaim_unstarted(), shared.read_results()) == (3, ["done"])


def test_nothing_is_left_over_for_the_next_chunk() -> None:
    """Claims and results of the last chunk are gone when the next one begins."""
    shared = ChunkMemory(0)
    shared.offer_chunk(3)
    shared.begin_chunk()
    assert shared.claim_task()
    shared.keep_result("of the last chunk")
    shared.offer_chunk(2)
    shared.begin_chunk()
    assert [shared.claim_task() for _ in range(3)] == [True, True, False]
    shared.keep_result("now")
    assert shared.read_results() == ["now"]


@pytest.mark.parametrize("unfit", ["x" * RESULT_BYTES, lambda: None], ids=["too long", "cannot be pickled"])
def test_no_result_is_kept_after_one_that_cannot_be_kept(unfit: object) -> None:
    """A result belongs to its task by the order of the results."""
    shared = ChunkMemory(0)
    shared.offer_chunk(3)
    shared.begin_chunk()
    for result in ("first", unfit, "third"):
        shared.keep_result(result)
    assert shared.read_results() == ["first"]


def test_memories_are_made_only_for_children_that_inherit_them() -> None:
    """A pool of threads has none, and neither has one whose children are spawned."""

    def pool(*, prefork: bool, forks: bool) -> SimpleNamespace:
        return SimpleNamespace(uses_semaphore=prefork, forking_enable=forks, limit=3)

    assert make_memories(pool(prefork=False, forks=True)) == []
    assert make_memories(pool(prefork=True, forks=False)) == []
    made = make_memories(pool(prefork=True, forks=True))
    assert len(made) == 6
    assert [each.number for each in made] == list(range(made[0].number, made[0].number + 6))
