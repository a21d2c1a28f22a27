"""For every error that a handler raises, its task fails once, by the error's own name; its slot goes on.

A retry is of one task: it keeps its id and its batch, and has so many and no more.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from millpond.broker import limits
from millpond.broker.inspect import dead_letters
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from tests.harness.noted import read_names, read_notes
from tests.harness.one_worker import settings_for, workers

#: The act of the handler, and the name of its error.
RAISED = {
    "unspeakable": "Unspeakable",
    "retry by hand": "Retry",
    "leave": "Base",
    "cancelled": "CancelledError",
    "memory": "MemoryError",
    "exit": "FinalError",
    "fail": "FinalError",
}


@pytest.fixture(params=["threads", "prefork"], scope="module")
def settings(
    request: pytest.FixtureRequest, module_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    made = settings_for(module_url, pool={"executor": request.param, "concurrency": 1, "prefetch": 0})
    with workers(made, tmp_path_factory.mktemp("raised")):
        yield made


def test_it_is_one_failure_by_its_own_name(settings: Settings, file: Path) -> None:
    """An error that cannot be shown or pickled, a `BaseException`, a `MemoryError`: each is a dead letter."""
    from broker_kinds import Act

    with Client(settings=settings) as client:
        with client.batch() as batch:
            sent = {batch.send(Act(file=str(file), name=what, what=what)).id: what for what in RAISED}
            batch.send(Act(file=str(file), name="next"))
        summary = batch.wait(timedelta(minutes=1))
        assert (summary.failed, summary.succeeded, summary.complete) == (len(RAISED), 1, True)
        letters = [
            each for each in dead_letters.read_dead_letters(client.store, "default") if each.task_id in sent
        ]
    assert {sent[letter.task_id]: letter.reason for letter in letters} == RAISED
    assert {sent[each.task_id]: each.detail["error"].split(":")[0] for each in letters} == RAISED
    assert {letter.deliveries for letter in letters} == {1}
    assert sorted(read_names(file)) == sorted([*RAISED, "next"]), "each ran once"


def test_a_task_rejected_to_be_requeued_lets_the_others_pass(settings: Settings, file: Path) -> None:
    """`Reject(requeue=True)` puts the message to the back of its queue, as kombu's Redis does."""
    from broker_kinds import Act

    with Client(settings=settings) as client:
        limits.change_limits(client.store, "default", paused=True)
        with client.batch() as batch:
            batch.send(Act(file=str(file), name="not now", what="requeue"))
            batch.send_many(Act(file=str(file), name=name) for name in ("a", "b"))
        limits.change_limits(client.store, "default", paused=None)
        assert batch.wait(timedelta(minutes=1)).complete
    assert read_names(file) == ["not now", "a", "b", "not now", "not now"]


def test_a_task_that_always_asks_for_another_run_fails_in_the_end(settings: Settings, file: Path) -> None:
    """A body of two retries runs three times, and is one failure of its batch and one dead letter."""
    from broker_kinds import Act

    with Client(settings=settings) as client:
        with client.batch() as batch:
            ids = [batch.send(Act(file=str(file), what="retry")).id for _ in range(3)]
        summary = batch.wait(timedelta(minutes=1))
        assert (summary.sent, summary.failed, summary.complete) == (3, 3, True)
        assert sorted(note.retries for note in read_notes(file)) == [0] * 3 + [1] * 3 + [2] * 3
        letters = [each.task_id for each in dead_letters.read_dead_letters(client.store, "default")]
    assert sorted(id for id in letters if id in ids) == sorted(ids)
