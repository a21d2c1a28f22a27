"""Retries are of one task: it keeps its id and its batch, and has so many and no more."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from millpond.broker.inspect import dead_letters
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from tests.harness.noted import read_notes
from tests.harness.one_worker import settings_for, workers


@pytest.fixture(params=["threads", "prefork"])
def settings(
    request: pytest.FixtureRequest, url: str, kinds_path: None, tmp_path: Path
) -> Iterator[Settings]:
    made = settings_for(url, pool={"executor": request.param})
    with workers(made, tmp_path):
        yield made


def test_a_task_that_always_asks_for_another_run_fails_in_the_end(settings: Settings, file: Path) -> None:
    """A body of two retries runs three times, and is one failure of its batch and one dead letter."""
    from broker_kinds import Act

    with Client(settings=settings) as client:
        with client.batch() as batch:
            ids = [batch.send(Act(file=str(file), what="retry")).id for _ in range(3)]
        summary = batch.wait(timedelta(minutes=1))
        assert (summary.sent, summary.failed, summary.complete) == (3, 3, True)
        assert sorted(note.retries for note in read_notes(file)) == [0] * 3 + [1] * 3 + [2] * 3
        assert sorted(
            letter.task_id for letter in dead_letters.read_dead_letters(client.store, "default")
        ) == sorted(ids)
