"""Two processes claim the tasks of one chunk: each task is claimed once, and claims of the dead stay."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from types import SimpleNamespace

import pytest

from millpond.worker.dispatch.chunk_job import RESULT_BYTES, ChunkMemory, make_memories


def in_a_child(act: Callable[[], None]) -> int:
    """Run in a child that was forked now, and return how it ended."""
    child = get_context("fork").Process(target=act)
    child.start()
    child.join(20)
    assert child.exitcode is not None
    return child.exitcode


def test_a_child_claims_from_the_front_and_the_worker_takes_the_rest_back() -> None:
    """A task that the child claimed is not the worker's, and one that the worker took not the child's."""
    shared = ChunkMemory(0)
    shared.offer_chunk(5)

    def start_two() -> None:
        shared.begin_chunk()
        for number in range(2):
            assert shared.claim_task()
            shared.keep_result(("answer", number))

    assert in_a_child(start_two) == 0
    assert shared.reclaim_unstarted() == 3
    assert shared.reclaim_unstarted() == 0
    assert not shared.claim_task()
    assert shared.read_results() == [("answer", 0), ("answer", 1)]
    assert shared.read_results() == []


def test_two_that_claim_at_once_have_each_task_once() -> None:
    """A child that claims and a worker that takes back as fast as they can leave none and share none."""
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


def test_what_a_killed_child_started_is_known() -> None:
    """It ended one and died in the next: the other three were never started."""
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


def test_nothing_is_left_over_for_the_next_piece() -> None:
    """Claims and answers that were not read are gone when the next piece begins."""
    shared = ChunkMemory(0)
    shared.offer_chunk(3)
    shared.begin_chunk()
    assert shared.claim_task()
    shared.keep_result("of the piece before")
    shared.offer_chunk(2)
    shared.begin_chunk()
    assert [shared.claim_task() for _ in range(3)] == [True, True, False]
    shared.keep_result("now")
    assert shared.read_results() == ["now"]


@pytest.mark.parametrize("unfit", ["x" * RESULT_BYTES, lambda: None], ids=["too long", "cannot be pickled"])
def test_answers_that_cannot_be_kept_are_left_out_in_order(unfit: object) -> None:
    """After one that was not kept none is: the order says whose answer it is."""
    shared = ChunkMemory(0)
    shared.offer_chunk(3)
    shared.begin_chunk()
    for answer in ("first", unfit, "third"):
        shared.keep_result(answer)
    assert shared.read_results() == ["first"]


def test_claims_are_made_for_children_that_inherit_them() -> None:
    """A pool of threads has none, nor one whose children start as fresh interpreters."""

    def pool(*, prefork: bool, forks: bool) -> SimpleNamespace:
        return SimpleNamespace(uses_semaphore=prefork, forking_enable=forks, limit=3)

    assert make_memories(pool(prefork=False, forks=True)) == []
    assert make_memories(pool(prefork=True, forks=False)) == []
    made = make_memories(pool(prefork=True, forks=True))
    assert len(made) == 6
    assert [each.number for each in made] == list(range(made[0].number, made[0].number + 6))
