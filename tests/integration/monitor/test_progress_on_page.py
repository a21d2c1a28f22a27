"""The page of a batch shows its running tasks: the process of each, and its reported progress."""

from millpond.broker import limits, publish
from millpond.broker.batches import progress, record
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys
from millpond.broker.outgoing import compose
from tests.harness.flower_process import Visitor


def test_a_batch_shows_how_far_its_running_tasks_got(ann: Visitor, watched: Store) -> None:
    """A running task is on the page of its batch with its progress, and on no other batch's."""
    mine, other = record.open_batch(watched), record.open_batch(watched)
    messages = [
        compose("files.checksum", {"n": n}, queue="running", sent_at_ms=0, id=f"task-{n}", batch=batch)
        for n, batch in enumerate((mine, mine, other))
    ]
    limits.declare_limits(watched, "running", {}, authoritative=False)
    publish.publish(watched, messages)
    lease = InFlightMessages(pools=("files",)).lease_on(QueueKeys("running", watched.prefix))
    fetch_call.call_and_wait(watched, FetchRequest(lease, 3, 3, []), lease_ms=60_000)
    progress.report_progress(watched, "task-1", 3_000, 12_000)
    page = ann.get(f"/batches/{mine}").text
    assert "3,000 of 12,000" in page
    assert page.index("task-1") < page.index("task-0"), "what says how far it got comes first"
    assert "task-2" not in page
    assert "files@" in page
