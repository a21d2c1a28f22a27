"""The fetch call that is sent along behind a wait."""

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest

#: How long a process relies on a reading of the server's clock.
CLOCK_GOOD_SECONDS = 25.0


def request_behind_wait(in_flight: InFlightMessages, active: set[str], until: float) -> FetchRequest | None:
    """Return the fetch call to send along behind a wait that ends by `until`; None if there is none.

    None with several queues, with one message asked for at a time, with a look at a queue due before
    `until`, with a server's clock that was not read lately. None under an in-flight limit, where the call
    that settles asks for more. None without a free slot: under a limit such a call would fetch nothing,
    although slots may be free when the wait ends.
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
