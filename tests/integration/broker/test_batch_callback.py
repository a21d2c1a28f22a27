"""The batch callback: sent once, with the counts, by the process that completes the batch."""

import json

import pytest

from millpond.broker.batches import record
from millpond.broker.batches.record import Summary, parse_completed_batch
from millpond.broker.connection import Store
from millpond.broker.control import cancel
from millpond.broker.inspect import dead_letters
from millpond.broker.outcomes import NOT_RUN, SUCCEEDED, DeadLetter, Expired
from millpond.producer.batch import Batch
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.tasks.errors import UnknownKind, UnknownQueue
from millpond.tasks.squares.contract import Square
from tests.harness.manual_consumer import ManualConsumer

FAILED = DeadLetter("FinalError", "it failed")


def filled(client: Client, count: int) -> Batch:
    """Return a closed batch of so many squares, which a square follows on the queue `email`."""
    with client.batch("seven [-1]", then=Message(Square(n=7), queue="email", priority=3)) as batch:
        batch.send_many(Square(n=n) for n in range(count))
    return batch


def followers(store: Store) -> list[Summary]:
    """Return the batch summaries of the tasks on the queue `email`."""
    consumer = ManualConsumer(store, "email")
    raw = store.client.lrange(consumer.lease.keys.ready[1], 0, -1)
    own_headers = [json.loads(message)["headers"]["millpond"] for message in raw]
    assert all(own["at"] > 1_600_000_000_000 for own in own_headers), "a message has the time of its sending"
    return [summary for own in own_headers if (summary := parse_completed_batch(own["after"]))]


def test_it_is_sent_with_the_counts_by_the_last_settlement(client: Client, store: Store) -> None:
    """The batch callback is sent after the last task has ended, with the counts of all tasks."""
    batch, consumer = filled(client, 4), ManualConsumer(store, "default")
    consumer.fetch(4)
    for settlement in (SUCCEEDED, FAILED, Expired()):
        consumer.settle(settlement, 1)
        assert followers(store) == []
    consumer.settle(SUCCEEDED)
    (summary,) = followers(store)
    now = batch.summary()
    assert (summary.id, summary.description) == (batch.id, "seven [-1]")
    assert [getattr(summary, name) for name in record.COUNTS] == [4, 2, 1, 0, 1]
    assert (summary.closed_at_ms, summary.completed_at_ms) == (now.closed_at_ms, now.completed_at_ms)
    assert summary.cancelled_at_ms is None


def test_an_empty_batch_is_followed_when_it_is_closed(client: Client, store: Store) -> None:
    """The callback of an empty batch is sent when the batch is closed, and once for any number of closes."""
    batch = filled(client, 0)
    batch.close()
    assert [summary.sent for summary in followers(store)] == [0]


def test_a_cancelled_batch_is_followed_and_says_so(client: Client, store: Store) -> None:
    """The callback of a cancelled batch has the time of the cancellation, and the counts until then."""
    with client.batch(then=Message(Square(n=7), queue="email", priority=3)) as batch:
        batch.send_many(Square(n=n) for n in range(2))
        consumer = ManualConsumer(store, "default")
        consumer.fetch(2)
        consumer.settle(SUCCEEDED, 1)
        cancel.cancel_batch(store, batch.id, timeout_seconds=0)
    consumer.settle(NOT_RUN)
    (summary,) = followers(store)
    assert (summary.succeeded, summary.cancelled) == (1, 1)
    assert summary.cancelled_at_ms == batch.summary().cancelled_at_ms


def test_a_batch_that_is_completed_again_is_not_followed_again(client: Client, store: Store) -> None:
    """A dead letter sent again after the batch was complete counts anew; its callback has been sent."""
    batch, consumer = filled(client, 2), ManualConsumer(store, "default")
    consumer.fetch(2)
    consumer.settle(SUCCEEDED, 1)
    consumer.settle(FAILED)
    assert [summary.failed for summary in followers(store)] == [1]
    (letter,) = dead_letters.read_dead_letters(store, "default")
    assert dead_letters.requeue(store, "default", letter.id)
    assert not batch.summary().complete
    consumer.fetch(1)
    consumer.settle(SUCCEEDED)
    summary = batch.summary()
    assert (summary.complete, summary.succeeded, summary.failed) == (True, 2, 0)
    assert len(followers(store)) == 1


def test_a_task_that_ran_twice_counts_once(client: Client, store: Store) -> None:
    """If a lease ran out and two consumers finish the same task, only the second delivery counts."""
    batch, frozen, other = (
        filled(client, 1),
        ManualConsumer(store, "default"),
        ManualConsumer(store, "default"),
    )
    frozen.fetch(1)
    frozen.lose_lease()
    other.settle_and_fetch()  # finds the lease that ran out
    assert other.fetch(1)
    frozen.settle(SUCCEEDED)
    assert batch.summary().succeeded == 0
    other.settle(SUCCEEDED)
    assert (batch.summary().succeeded, batch.summary().complete) == (1, True)
    assert len(followers(store)) == 1


def test_a_bad_callback_is_refused_before_the_batch_is_opened(client: Client) -> None:
    """`then=` with an unknown kind or queue, or with `once`, is refused in one line; no batch is opened."""
    with pytest.raises(UnknownKind, match=r"no\.such"):
        client.batch(then=("no.such", {}))
    with pytest.raises(UnknownQueue, match="nowhere"):
        client.batch(then=Message(Square(n=1), queue="nowhere"))
    with pytest.raises(ValueError, match=r"then= takes no once"):
        client.batch(then=Message(Square(n=1), once="x"))
    assert list(client.batches()) == []
