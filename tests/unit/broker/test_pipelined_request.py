"""The conditions under which a fetch may be sent along behind a wait."""

import time

from millpond.broker.consume.fetch_call import make_pipelined_request
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.keys import QueueKeys
from tests.harness.manual_consumer import delivery_of


def waiting(*, slots: int, busy: int) -> InFlightMessages:
    """Return the messages of a process with so many busy slots, which has just read the server's clock."""
    in_flight = InFlightMessages(prefetch=16)
    in_flight.slots = slots
    lease = in_flight.lease_on(QueueKeys("one"))
    lease.registered, lease.clocked_at = True, time.monotonic()
    for number in range(busy):
        lease.add_delivery(delivery_of(f"{number}/0", f"task {number}"))
    return in_flight


def test_it_has_the_number_of_free_slots() -> None:
    """While a slot is free, the request has their number: so many may be fetched under a limit."""
    request = make_pipelined_request(waiting(slots=5, busy=3), {"one"}, time.monotonic() + 1)
    assert request is not None
    assert request.free_slots == 2


def test_none_is_sent_while_every_slot_is_busy() -> None:
    """It would fetch nothing under a limit, and use up the wake token for a free slot."""
    assert make_pipelined_request(waiting(slots=5, busy=5), {"one"}, time.monotonic() + 1) is None
