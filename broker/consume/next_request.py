"""Choose the next call of settle_and_fetch.lua: for which queue, with which outcomes and how much credit.

A `FetchRequest` gives all the credit of the process to one queue.
"""

from collections.abc import Iterator, Set

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest

#: Outcomes are sent together once there are this many, or once the oldest has waited for this long.
GATHERED = 8
GATHERED_SECONDS = 0.005

#: How long a process relies on its last measurement of the server's clock.
CLOCK_FRESH_SECONDS = 25.0


def take_next_request(in_flight: InFlightMessages, active: Set[str], now: float) -> FetchRequest | None:
    """Return the next call to send, with the outcomes of its queue, which it takes. None if no call is due.

    Only queues in `active` are fetched from. A call is due for a queue when half of the prefetch is used up,
    or when its outcomes have been gathered. `now` is monotonic seconds.
    """
    if in_flight.finished:
        in_flight.settle_finished()
    count = in_flight.count
    in_flight.learned_prefetch.measure(now, is_full=count >= in_flight.capacity[0])
    for queue in _queues_in_order(in_flight, now):
        lease = in_flight.leases[queue]
        if lease.lease_lost:
            in_flight.replace_lost_lease(lease)
        if lease.fetch_at and now >= lease.fetch_at:
            lease.fetchable, lease.fetch_at = True, 0.0
        may_find = lease.fetchable or (lease.is_limited and bool(lease.outcomes))
        is_fetching = may_find and lease.keys.queue in active and not in_flight.starts_nothing
        if not (is_fetching or lease.outcomes):
            continue
        slots, prefetch = in_flight.capacity
        room = max(0, slots + prefetch - count) if is_fetching else 0
        if room and in_flight.may_fetch is not None:
            room = 1 if in_flight.may_fetch() else 0
        is_half_empty = room > 0 and count <= slots + prefetch // 2
        gathered = now - lease.outcomes_since >= GATHERED_SECONDS or len(lease.outcomes) >= GATHERED
        # Work would be delayed if messages wait for the permits that the outcomes free, or if nothing runs.
        is_urgent = lease.is_limited or not count or in_flight.draining
        if is_half_empty or (lease.outcomes and (gathered or is_urgent)):
            free_slots = max(0, slots - count) if room else 0
            request = FetchRequest(lease, min(room, in_flight.max_fetch), free_slots, lease.take_outcomes())
            in_flight.outcomes_taken.set()
            return request
    return None


def make_pipelined_request(
    in_flight: InFlightMessages, active: Set[str], wait_ends_at: float
) -> FetchRequest | None:
    """Return the fetch call to pipeline behind a blocking pop that ends at `wait_ends_at`.

    The server carries it out when the pop ends. None unless the process consumes one queue (`active`),
    requests several messages at a time, has a free slot and a lease, has measured the server's clock lately,
    and has no set time to fetch before the pop ends (monotonic seconds). Under an in-flight limit nothing is
    pipelined, because the call that settles fetches.
    """
    if len(active) != 1 or in_flight.may_fetch is not None or in_flight.max_fetch == 1:
        return None
    [queue] = active
    lease, free_slots = in_flight.leases[queue], in_flight.capacity[0] - in_flight.count
    if not lease.registered or lease.lease_lost or wait_ends_at - lease.clocked_at >= CLOCK_FRESH_SECONDS:
        return None
    if lease.is_limited or 0.0 < lease.fetch_at <= wait_ends_at or free_slots <= 0:
        return None
    credit = min(in_flight.room, in_flight.max_fetch)
    return FetchRequest(lease, credit, free_slots, [], None, lease.consumer)


def _queues_in_order(in_flight: InFlightMessages, now: float) -> Iterator[str]:
    """Yield the queues in the order in which `take_next_request` considers them for a call."""
    order = in_flight.fetch_order
    if in_flight.queue_order == "round_robin":
        for _ in range(len(order)):
            queue = order[0]
            order.rotate(-1)
            yield queue
        return
    # Queues with overdue outcomes come first. Else a first queue that always has messages would delay them.
    for queue in tuple(order):
        lease = in_flight.leases[queue]
        if lease.outcomes and now - lease.outcomes_since >= 2 * GATHERED_SECONDS:
            yield queue
    yield from sorted(order) if in_flight.queue_order == "sorted" else tuple(order)
