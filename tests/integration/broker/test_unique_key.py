"""A task sent once: its name is taken for as long as the task lives, and never for longer by accident."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from millpond.broker import limits
from millpond.broker.control import cancel as control_cancel
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect import purge as inspect_purge
from millpond.broker.inspect.depth import read_depth
from millpond.broker.outcomes import (
    NOT_RUN,
    REDELIVER,
    RELEASE,
    SUCCEEDED,
    DeadLetter,
    Delay,
    Expired,
    Outcome,
)
from millpond.producer.client import Client
from millpond.tasks.errors import QueueFull
from millpond.tasks.squares.contract import Square
from tests.harness.manual_consumer import ManualConsumer

NAME = "order-42"
BURIED = DeadLetter("FinalError", "it failed")


@pytest.fixture
def consumer(client: Client) -> ManualConsumer:
    return ManualConsumer(client.store, "default")


def send(client: Client) -> str | None:
    """Send under the unique key; return the id of the task that it duplicates, or None."""
    return client.send(Square(n=1), once=NAME).duplicate_of


def end(outcome: Outcome) -> Callable[[Client, ManualConsumer], None]:
    def settle(client: Client, consumer: ManualConsumer) -> None:
        consumer.fetch()
        consumer.settle(outcome)

    return settle


def shed(client: Client, consumer: ManualConsumer) -> None:
    limits.change_limits(client.store, "default", bound=1)
    client.send(Square(n=2), overflow="shed")
    limits.change_limits(client.store, "default", bound=None)


def deliver_too_often(client: Client, consumer: ManualConsumer) -> None:
    for _ in range(5):
        consumer.fetch()
        consumer.settle(REDELIVER)


def purge(client: Client, consumer: ManualConsumer) -> None:
    inspect_purge.purge_queue(client.store, "default")


def cancel(client: Client, consumer: ManualConsumer) -> None:
    control_cancel.cancel_task(client.store, "first")


ENDS = {
    "succeeded": end(SUCCEEDED),
    "failed": end(BURIED),
    "cancelled": end(NOT_RUN),
    "expired": end(Expired()),
    "shed": shed,
    "delivered too often": deliver_too_often,
    "purged": purge,
    "cancelled while it waits": cancel,
}


@pytest.mark.parametrize("how", list(ENDS))
def test_a_name_is_free_once_its_task_has_ended(client: Client, consumer: ManualConsumer, how: str) -> None:
    """Once a task has ended in any way, its unique key is free; before, a second task names the first."""
    client.send(Square(n=1), once=NAME, id="first")
    assert send(client) == "first"
    ENDS[how](client, consumer)
    assert send(client) is None


@pytest.mark.parametrize("how", ["succeeded", "failed", "purged"])
def test_a_name_that_was_taken_for_a_time_stays(client: Client, consumer: ManualConsumer, how: str) -> None:
    """With `for_` the unique key is taken for that long, for every end of its task."""
    client.send(Square(n=1), once=NAME, for_=timedelta(hours=1), id="first")
    ENDS[how](client, consumer)
    assert send(client) == "first"


def test_a_name_lasts_through_redelivery_and_retries(client: Client, consumer: ManualConsumer) -> None:
    """A killed worker, a released delivery and a retry leave the unique key with its task."""
    client.send(Square(n=1), once=NAME, id="first")
    consumer.fetch()
    consumer.lose_lease()
    other = ManualConsumer(client.store, "default")
    other.fetch()
    assert send(client) == "first"
    other.settle(RELEASE)
    other.fetch()
    other.settle(Delay(0))
    assert send(client) == "first"
    other.fetch()
    other.settle(SUCCEEDED)
    assert send(client) is None


def test_a_late_settlement_frees_no_name(client: Client, consumer: ManualConsumer) -> None:
    """A worker that lost its lease cannot end the claim of a task that another worker runs."""
    client.send(Square(n=1), once=NAME, id="first")
    consumer.fetch()
    consumer.lose_lease()
    ManualConsumer(client.store, "default").fetch()
    consumer.settle(SUCCEEDED)
    assert send(client) == "first"


def test_a_requeued_dead_letter_has_its_name_again_unless_another_has_it(
    client: Client, consumer: ManualConsumer
) -> None:
    """A requeue takes the unique key back; while another task has the key, the dead letter stays."""
    client.send(Square(n=1), once=NAME, id="first")
    end(BURIED)(client, consumer)
    [letter] = dead_letters.read_dead_letters(client.store, "default")
    client.send(Square(n=1), once=NAME, id="second")
    with pytest.raises(BrokerError, match="belongs to task second now"):
        dead_letters.requeue(client.store, "default", letter.id)
    end(SUCCEEDED)(client, consumer)
    assert dead_letters.requeue(client.store, "default", letter.id)
    assert send(client) == "first"


def test_a_duplicate_is_counted_as_one_and_is_no_sign_of_a_full_queue(client: Client) -> None:
    """A duplicate is counted as one, not as a refusal: it raises neither the bound nor an alarm."""
    assert [send(client) is None for _ in range(3)] == [True, False, False]
    limits.change_limits(client.store, "default", bound=1)
    with pytest.raises(QueueFull):
        client.send(Square(n=2), overflow="reject")
    counters = read_depth(client.store, "default").counters
    assert (counters["published"], counters["duplicates"], counters["refused"]) == (1, 2, 1)


def test_a_duplicate_is_known_before_the_queue_is_full(client: Client) -> None:
    """The unique key is looked up before the bound, and a refused message takes no key."""
    limits.change_limits(client.store, "default", bound=1)
    client.send(Square(n=1), once=NAME, id="first")
    assert send(client) == "first"
    with pytest.raises(QueueFull):
        client.send(Square(n=2), once="order-43", overflow="reject")
    limits.change_limits(client.store, "default", bound=2)
    assert client.send(Square(n=2), once="order-43").duplicate_of is None
