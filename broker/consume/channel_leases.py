"""The leases of one kombu channel, for its messages in flight, from its first fetch until it is closed.

A channel that closes releases the tasks that have not started. A task that has started goes on under the
lease until it is acknowledged. If its process ends before, it is redelivered and the delivery counts. While
the broker is unreachable, the release is tried for as long as the leases last. Then the thread ends.
"""

import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Set

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.consume.fetch_call import settle_pending
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LEAVING_MS, LeaseRenewer, end_leases
from millpond.broker.consume.lease_resumption import resume
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.outcomes import REDELIVER

logger = logging.getLogger(__name__)

#: Returns the tags of the deliveries that have started, of any channel.
Started = Callable[[], Set[str]]

_open: weakref.WeakSet["ChannelLeases"] = weakref.WeakSet()


class ChannelLeases(LeaseRenewer):
    """Renews the leases of a channel, and outlives it only for started tasks."""

    def __init__(self, in_flight: InFlightMessages, *, lease_ms: int, store: Store, started: Started) -> None:
        super().__init__(in_flight, lease_ms=lease_ms, store=store)
        self._started = started
        self._pid = os.getpid()
        #: When a closed channel's leases have surely expired (monotonic); 0 while it is open.
        self._closed_until = 0.0
        self._has_released = False

    def start(self) -> None:
        """Start the thread. Messages in flight when the process ends are settled then."""
        _open.add(self)
        super().start()

    def close(self) -> None:
        """Release the tasks that have not started, and end with the last started one."""
        self.retire()
        if self._is_over():
            self.stop()

    def retire(self) -> None:
        """Release in the thread the tasks that have not started. For a channel that is collected unclosed."""
        self._closed_until = time.monotonic() + self.lease_ms / 1000

    def _is_over(self) -> bool:
        """True once nothing is left to renew. Releases the tasks that have not started."""
        if not self._closed_until:
            return False
        try:
            with self.in_flight.lock:
                if not self._has_released:
                    self._release_waiting(self._started())
                if not self.in_flight.count:
                    end_leases(self.store, self.in_flight)
                    return self._end_leases()
        except (RedisError, OSError) as error:
            logger.debug("messages of a closed channel could not be released: %s", error)
            if not self._has_released and time.monotonic() > self._closed_until:
                return self._end_leases()  # the leases have expired
        return False

    def _seek_orphans(self, lease: QueueLease) -> bool:
        """Search nothing: a worker of the queue does."""
        return bool(lease)

    def _end_leases(self) -> bool:
        """Close the store. Return True: there is nothing more to renew."""
        _open.discard(self)
        self.store.close()
        return True

    def _release_waiting(self, started: Set[str]) -> None:
        """Settle what has ended, and release all messages whose tasks have not started."""
        self.in_flight.settle_finished()
        settle_pending(self.store, self.in_flight, lease_ms=self.lease_ms)
        for lease in self.in_flight.leases.values():
            lease.in_flight = {
                token: delivery for token, delivery in lease.in_flight.items() if delivery.tag in started
            }
            if lease.in_flight:  # messages of a reply that was never read are released too
                resume(self.store, self.in_flight, lease, lease_ms=self.lease_ms)
        self._has_released = True

    def end_with_process(self) -> None:
        """Redeliver the started tasks, and release the rest: this process ends."""
        if self._pid != os.getpid():
            return
        started = self._started()
        for lease in self.in_flight.leases.values():
            for delivery in list(lease.in_flight.values()):
                if delivery.tag in started:
                    lease.queue_outcome(delivery, REDELIVER)
        try:
            settle_pending(self.store, self.in_flight, lease_ms=LEAVING_MS)
            end_leases(self.store, self.in_flight)
        except (RedisError, OSError) as error:
            logger.debug("messages of a closed channel become ready when its lease expires: %s", error)


@atexit.register
def _end_with_process() -> None:
    """Settle and release as the process ends, for each channel that is not closed."""
    for leases in list(_open):
        leases.end_with_process()
