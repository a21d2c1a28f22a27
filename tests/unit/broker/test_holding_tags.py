"""What one process promises when it consumes several queues: a token is of its queue."""

from millpond.broker.consume.in_flight import Holder
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED, DeadLetter
from tests.harness.by_hand import delivery_of


def held_twice() -> tuple[Holder, Delivery, Delivery]:
    """Return what has two messages of two queues in flight under the same token, and their deliveries."""
    holder, deliveries = Holder(), []
    for queue in ("one", "two"):
        delivery = delivery_of("1/0", f"task of {queue}")
        delivery.queue = queue
        holder.hold(QueueKeys(queue)).take(delivery)
        deliveries.append(delivery)
    return holder, deliveries[0], deliveries[1]


def test_an_outcome_is_for_the_queue_of_its_message() -> None:
    """Settling a message of one queue leaves the message of another with the same token in flight."""
    holder, one, two = held_twice()
    assert holder.find(two.tag) is two
    assert holder.settle(two, SUCCEEDED)
    assert [each.message.id for each, _ in holder.holds["two"].settlements(10)] == ["task of two"]
    assert list(holder.holds["one"].held.values()) == [one]
    assert not holder.holds["one"].pending


def test_an_outcome_is_of_one_delivery() -> None:
    """What finished in one queue says nothing of another's, and is settled once."""
    holder, one, two = held_twice()
    holder.finish(two, DeadLetter("FinalError", "it failed"))
    holder.finish(one, SUCCEEDED)
    holder.settle_finished()
    assert [outcome for _, outcome in holder.holds["one"].settlements(10)] == [SUCCEEDED]
    assert not holder.settle(one, SUCCEEDED)


def test_a_lost_lease_is_that_of_one_queue() -> None:
    """A message is lost with the lease of its own queue only."""
    holder, one, two = held_twice()
    holder.lost(holder.holds["two"])
    assert holder.is_lost(two)
    assert not holder.is_lost(one)
