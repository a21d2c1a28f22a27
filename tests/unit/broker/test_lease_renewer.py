"""The thread that renews leases, without a server: it keeps trying until just before the lease expires."""

import threading
import time
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LeaseRenewer
from millpond.broker.keys import QueueKeys

LEASE_MS = 3_000


class AwayAtFirst:
    """A client whose server is away for the first calls."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.renewed_at = 0.0
        self.renewed = threading.Event()

    def execute_command(self, *_: Any) -> int:
        """Fail, or renew."""
        self.times -= 1
        if self.times >= 0:
            raise RedisConnectionError("away")
        self.renewed_at = self.renewed_at or time.monotonic()
        self.renewed.set()
        return 1


def test_a_lease_is_renewed_soon_after_the_server_is_back() -> None:
    """A server that misses some renewals hears of the lease before it is over."""
    client = AwayAtFirst(times=4)
    in_flight = InFlightMessages()
    lease = in_flight.lease_on(QueueKeys("kept"))
    lease.registered = lease.orphans_searched = True
    keeper = LeaseRenewer(in_flight, lease_ms=LEASE_MS, store=Store(client))
    begun = time.monotonic()
    keeper.start()
    assert client.renewed.wait(10)
    keeper.stop()
    assert client.renewed_at - begun < LEASE_MS / 1000
