"""Leave the queues as a worker does at the end, with work in every state."""

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume.channel_leases import ChannelLeases
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import end_leases
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.outcomes import SUCCEEDED, DeadLetter
from millpond.broker.outgoing import compose
from tests.harness.manual_consumer import LEASE_MS, ManualConsumer


def held(store: Store, count: int) -> InFlightMessages:
    """Return the in-flight messages of a queue, so many of them."""
    messages = [compose("test.kind", {"n": n}, queue="left", sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)
    consumer = ManualConsumer(store, "left")
    consumer.fetch(count)
    return consumer.in_flight


def test_finished_tasks_are_settled_and_the_others_released(store: Store) -> None:
    """A task that ended before its process left is settled and does not run again; others are released."""
    in_flight = held(store, 3)
    lease = in_flight.leases["left"]
    in_flight.queue_outcome(next(iter(lease.in_flight.values())), SUCCEEDED)
    assert end_leases(store, in_flight) == 2
    depth = inspect_depth.read_depth(store, "left")
    assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (2, 0, 1)


def test_a_task_that_the_event_loop_was_about_to_settle_does_not_run_again(store: Store) -> None:
    """A task that has ended counts, with its result, although the loop never came to settle it."""
    in_flight = held(store, 3)
    lease = in_flight.leases["left"]
    delivery = next(iter(lease.in_flight.values()))
    in_flight.finished.append((delivery, DeadLetter("FinalError", "it failed")))
    assert end_leases(store, in_flight) == 2
    depth = inspect_depth.read_depth(store, "left")
    assert (depth.ready, depth.in_flight, depth.dead) == (2, 0, 1)
    assert not in_flight.queue_outcome(delivery, SUCCEEDED), "the loop settles it, late"


def test_a_task_that_the_pool_drops_after_its_channel_was_closed_is_released(store: Store) -> None:
    """After a lost connection Celery closes the channel, and then drops tasks that no child has accepted."""
    in_flight = held(store, 3)
    deliveries = list(in_flight.leases["left"].in_flight.values())
    started = {delivery.tag for delivery in deliveries}
    leases = ChannelLeases(in_flight, lease_ms=LEASE_MS, store=store, started_tags=lambda: set(started))
    leases.close()
    started.clear()  # the pool drops two, and the third one ends at this moment
    assert not leases._end_if_done()
    depth = inspect_depth.read_depth(store, "left")
    assert (depth.ready, depth.in_flight) == (0, 3), "a task that ends may not be settled yet"
    in_flight.queue_outcome(deliveries[0], SUCCEEDED)
    assert leases._end_if_done()
    depth = inspect_depth.read_depth(store, "left")
    assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (2, 0, 1)
