"""The worker's estimate of the server's clock never runs behind it."""

import time

from millpond.broker.consume import fetch_call
from millpond.broker.consume.fetch_call import Reply
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys

AHEAD_MS = 50_000


def test_a_reply_that_is_read_late_makes_no_retry_early() -> None:
    """The server's clock is taken from when a call was sent, however late its reply is read."""
    lease = InFlightMessages().lease_on(QueueKeys("slow"))
    sent_ms = int(time.time() * 1000) - 700  # the process was busy for so long
    request = FetchRequest(lease, 1, 1, [], sent_ms=sent_ms)
    fetch_call.update_lease(request, Reply(sent_ms + AHEAD_MS, True, 0, -1, 0, []))
    assert lease.clock_ms == AHEAD_MS


def test_the_quickest_call_has_the_clock() -> None:
    """Of several calls, the one that the server answered soonest is right, and a slow one changes nothing."""
    lease = InFlightMessages().lease_on(QueueKeys("slow"))
    sent_ms = int(time.time() * 1000) - 500
    for taken_ms in (400, 1, 90):
        request = FetchRequest(lease, 1, 1, [], sent_ms=sent_ms)
        fetch_call.update_lease(request, Reply(sent_ms + AHEAD_MS + taken_ms, True, 0, -1, 0, []))
    assert lease.clock_ms == AHEAD_MS + 1


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    """The next call has the server's clock after a step of it, back or forth, whatever was known before."""
    lease = InFlightMessages().lease_on(QueueKeys("slow"))
    for ahead_ms in (0, 3_600_000, 3_540_000, -60_000, -59_000):
        request = FetchRequest(lease, 1, 1, [])
        assert request.sent_ms is not None
        fetch_call.update_lease(request, Reply(request.sent_ms + ahead_ms, True, 0, -1, 0, []))
        assert lease.clock_ms == ahead_ms
