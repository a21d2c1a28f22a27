"""Leave the queues as a worker does at the end, with work in every state."""

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import Holder
from millpond.broker.consume.lease_renewer import leave
from millpond.broker.consume.queue_lease import Turn
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.message import compose
from millpond.broker.outcomes import SUCCEEDED, DeadLetter

LEASE_MS = 60_000


def held(store: Store, count: int) -> Holder:
    """Return a holder of so many messages of a queue."""
    messages = [compose("test.kind", {"n": n}, queue="left", sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)
    holder = Holder()
    hold = holder.hold(QueueKeys("left", store.prefix))
    reply = fetch_call.call(store, Turn(hold, count, count, []), lease_ms=LEASE_MS)
    fetch_call.accept(hold, reply, lambda *_: None)
    return holder


def test_what_is_finished_is_settled_and_the_rest_given_back(store: Store) -> None:
    """A task that has ended does not run again because its process left before it told the broker."""
    holder = held(store, 3)
    hold = holder.holds["left"]
    holder.settle(next(iter(hold.held.values())), SUCCEEDED)
    assert leave(store, holder) == 2
    depth = inspect_depth.depth(store, "left")
    assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (2, 0, 1)


def test_what_the_event_loop_was_about_to_settle_does_not_run_again(store: Store) -> None:
    """A task that has ended counts, with what it returned, although the loop never came to settle it."""
    holder = held(store, 3)
    hold = holder.holds["left"]
    delivery = next(iter(hold.held.values()))
    holder.finish(delivery, DeadLetter("FinalError", "it failed"))
    assert leave(store, holder) == 2
    depth = inspect_depth.depth(store, "left")
    assert (depth.ready, depth.in_flight, depth.dead) == (2, 0, 1)
    assert not holder.settle(delivery, SUCCEEDED), "the loop settles it, late"
