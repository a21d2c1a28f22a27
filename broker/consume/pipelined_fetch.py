"""The fetch call that is pipelined behind the blocking pop of a wake token."""

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest

#: How long a process relies on its last measurement of the server's clock.
CLOCK_FRESH_SECONDS = 25.0


def make_pipelined_request(
    in_flight: InFlightMessages, active: set[str], until: float
) -> FetchRequest | None:
    """Return the fetch call to pipeline behind a blocking pop that ends at `until`, or None for none.

    A fetch is pipelined only if the process consumes one queue (`active`), requests several messages at a
    time, has a free slot and a lease, has measured the server's clock lately, and need not fetch at a set
    time before `until`. Under an in-flight limit nothing is pipelined, because the call that settles fetches.
    """
    if len(active) != 1 or in_flight.may_fetch is not None or in_flight.max_fetch == 1:
        return None
    [queue] = active
    lease, free_slots = in_flight.leases[queue], in_flight.capacity[0] - in_flight.count
    if not lease.registered or lease.lease_lost or until - lease.clocked_at >= CLOCK_FRESH_SECONDS:
        return None
    if lease.is_limited or 0.0 < lease.fetch_at <= until or free_slots <= 0:
        return None
    credit = min(in_flight.room, in_flight.max_fetch)
    return FetchRequest(lease, credit, free_slots, [], None, lease.consumer)
