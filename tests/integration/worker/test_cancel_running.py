"""Cancel tasks that run in prefork children: asked, or ended; and the callback of a batch."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.stats import heartbeats
from millpond.producer.client import Client
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.gates import gate

POND = {
    "settings": {"table": {"pools": {"default": {"executor": "prefork", "concurrency": 2, "prefetch": 16}}}}
}
PATIENCE = timedelta(seconds=30)


@pytest.fixture
def client(pond: Embedded) -> Iterator[Client]:
    """A client of a prefork pool with two slots."""
    with Client(settings=pond.settings) as opened:
        yield opened


def ended(client: Client, kind: str) -> dict[str, int]:
    """Return how the runs of a kind ended, by the pool's figures."""
    [totals] = heartbeats.read_totals(client.store, ["default"])
    return {state: count for (state, of), count in totals.ended.items() if of == kind}


def test_a_running_task_is_ended_and_counts_as_cancelled(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """The child of a cancelled task is killed; the task does not run again, and its slot takes the next."""
    with client.batch() as batch:
        sent = batch.send(gate(tmp_path, "stuck"))
    started = tmp_path / "stuck.started"
    pid = int(eventually(lambda: started.exists() and started.read_text()))
    answer = client.cancel(sent.id, terminate=True)
    assert answer.found is not None
    assert (answer.found.state, answer.unacknowledged) == ("running", ())
    (result,) = batch.results()
    assert (result.state, result.error) == ("cancelled", "ended while it ran")
    eventually(lambda: ended(client, "test.gate"))
    assert ended(client, "test.gate") == {"cancelled": 1}
    eventually(lambda: not psutil.pid_exists(pid))
    depth = inspect_depth.read_depth(client.store, "default")
    assert (depth.ready, depth.in_flight, depth.dead, depth.counters.get("redelivered", 0)) == (0, 0, 0, 0)
    with client.batch() as after:
        after.send_many(Square(n=n, hold_seconds=0.3) for n in range(4))
    assert after.wait(PATIENCE).succeeded == 4


def test_a_cancelled_batch_ends_what_runs_only_if_asked(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """A cancelled batch's running tasks go on; with `terminate` they are ended."""
    with client.batch() as batch:
        batch.send_many(gate(tmp_path, f"g{n}") for n in range(6))
    eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2)
    assert batch.cancel().unacknowledged == ()
    eventually(lambda: batch.summary().pending == 2)  # the next call of the worker settles the dropped tasks
    batch.cancel(terminate=True)
    summary = batch.wait(PATIENCE)
    assert (summary.complete, summary.cancelled, summary.succeeded) == (True, 6, 0)
    assert len(list(tmp_path.glob("*.started"))) == 2


@pytest.mark.slow
def test_a_task_that_shares_its_child_is_ended_and_the_others_run(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """Short tasks that share a child with a cancelled one run to their end."""
    from pond_kinds import Hold  # no other test here runs one, so its figures are of this one

    names = [f"n{n}" for n in range(120)]
    for name in names:
        if name != "n60":
            (tmp_path / f"{name}.open").touch()
    with client.batch() as batch:
        ids = {name: batch.send(Hold(folder=str(tmp_path), name=name)).id for name in names}
    eventually(lambda: (tmp_path / "n60.started").exists())
    client.cancel(ids["n60"], terminate=True)
    summary = batch.wait(PATIENCE)
    assert (summary.succeeded, summary.cancelled, summary.failed) == (119, 1, 0)
    [stopped] = [result for result in batch.results() if result.state == "cancelled"]
    assert (stopped.id, stopped.error) == (ids["n60"], "ended while it ran")
    eventually(lambda: ended(client, "test.hold").get("cancelled") == 1)
    assert len(list(tmp_path.glob("*.done"))) == 119
    assert inspect_depth.read_depth(client.store, "default").counters.get("redelivered", 0) == 0


def test_a_batch_callback_gets_the_counts_of_its_batch(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """The handler of a batch callback has the counts of the batch in its context; it runs once."""
    from pond_kinds import Tell

    counts_file = tmp_path / "counts"
    with client.batch("squares", then=Tell(file=str(counts_file))) as batch:
        batch.send_many(Square(n=n) for n in range(20))
    (line,) = eventually(lambda: counts_file.exists() and counts_file.read_text().splitlines())
    counts = json.loads(line)
    assert (counts["id"], counts["sent"], counts["succeeded"]) == (batch.id, 20, 20)
    assert counts["completed_at_ms"] == batch.summary().completed_at_ms
