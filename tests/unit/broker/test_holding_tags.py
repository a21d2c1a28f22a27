"""Hold what the holder promises when one process consumes several queues."""

from millpond.broker.consume.in_flight import Holder
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import Settlement


def held_twice() -> Holder:
    """Return a holder of two messages of two queues under the same token."""
    holder = Holder()
    for queue in ("one", "two"):
        holder.hold(QueueKeys(queue)).take("1/0", id=f"task of {queue}", batch=None)
    return holder


def test_a_settlement_is_for_the_queue_of_its_message() -> None:
    """Settling a message of one queue leaves the message of another with the same token held."""
    holder = held_twice()
    two = holder.holds["two"]
    assert holder.settle(two.tag("1/0"))
    assert [held.id for _, held, _ in two.settlements(10)] == ["task of two"]
    assert list(holder.holds["one"].held) == ["1/0"]
    assert not holder.holds["one"].pending


def test_an_outcome_is_noted_for_one_message() -> None:
    """What was noted for a message of one queue is not said of another's."""
    holder = held_twice()
    one, two = holder.holds["one"], holder.holds["two"]
    holder.note(two.tag("1/0"), Settlement(state="failed"))
    holder.settle(one.tag("1/0"))
    assert [settlement.state for _, _, settlement in one.settlements(10)] == ["succeeded"]


def test_a_lost_lease_is_that_of_one_queue() -> None:
    """A message is lost with the lease of its own queue only."""
    holder = held_twice()
    one, two = holder.holds["one"], holder.holds["two"]
    holder.lost(two)
    assert holder.is_lost(two.tag("1/0"))
    assert not holder.is_lost(one.tag("1/0"))
