"""The fetch call that is pipelined behind the blocking pop of a wake token."""

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest

#: How long a process relies on a reading of the server's clock.
CLOCK_GOOD_SECONDS = 25.0


def pipelined_request(in_flight: InFlightMessages, active: set[str], until: float) -> FetchRequest | None:
    """Return the fetch call to pipeline behind a blocking pop that ends at `until`, or None.

    A fetch is pipelined only if the process consumes one queue, requests several messages at a time, has read
    the server's clock lately, has a free slot, and need not fetch at a set time before `until`. Under an
    in-flight limit the call that settles fetches, and nothing is pipelined.
    """
    if len(active) != 1 or in_flight.may_fetch is not None:
        return None
    lease, free = in_flight.leases[next(iter(active))], in_flight.reach[0] - in_flight.count
    is_known = lease.registered and not lease.lease_lost and until - lease.clocked_at < CLOCK_GOOD_SECONDS
    if not is_known or lease.is_limited or 0.0 < lease.look_at <= until:
        return None
    if free <= 0 or in_flight.at_once == 1:
        return None
    return FetchRequest(lease, min(in_flight.room, in_flight.at_once), free, [], None, lease.consumer)
