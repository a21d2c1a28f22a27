"""The outcome that a body chooses while its worker drains holds, also when the drain has to be cut short."""

from pathlib import Path

import pytest

from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from tests.conftest import Eventually
from tests.harness.noted import read_names
from tests.harness.one_worker import settings_for, workers


@pytest.mark.parametrize(
    ("executor", "what"), [("threads", "reject"), ("prefork", "reject"), ("prefork", "kill")]
)
def test_one_that_is_rejected_is_not_given_back_at_the_deadline(
    url: str, file: Path, tmp_path: Path, eventually: Eventually, executor: str, what: str
) -> None:
    """A rejected task becomes a dead letter, or its delivery counts, although a body beside it never ends."""
    from broker_kinds import Act

    pool = {"executor": executor, "concurrency": 2}
    settings = settings_for(url, pool=pool, queue={"max_deliveries": 1}, drain_seconds=4)
    with workers(settings, tmp_path) as [worker], Client(url) as client:
        client.send(Act(file=str(file), name="endless", what="wait"))
        client.send(Act(file=str(file), name="rejected", what=what, seconds=1))
        eventually(lambda: len(read_names(file)) == 2)
        assert worker.stop(60) == 0
        seen = read_depth(client.store, "default")
    assert (seen.ready, seen.in_flight, seen.dead) == (1, 0, 1)
