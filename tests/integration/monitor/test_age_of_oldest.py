"""The age of a queue is how long its next task has waited to run, not how long ago it was sent."""

from millpond.broker import server
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish


def test_a_task_ages_from_when_it_was_due(store: Store) -> None:
    """A task's age counts from its due time, not from its sending; a task that is not due has no age."""
    now = server.server_time_ms(store)
    day = 24 * 3_600_000
    later = compose("squares.square", {"n": 1}, queue="aged", sent_at_ms=now - day, due_ms=now + day)
    publish(store, [later], policy="exempt")
    assert (depth.read_depth(store, "aged").delayed, depth.read_depth(store, "aged").oldest_seconds) == (
        1,
        None,
    )
    due = compose("squares.square", {"n": 1}, queue="aged", sent_at_ms=now - day, due_ms=now - 10_000)
    publish(store, [due], policy="exempt")
    oldest = depth.read_depth(store, "aged").oldest_seconds
    assert oldest is not None
    assert 10 <= oldest < 600
