"""The leases of one kombu channel on the queues of its messages in flight.

A channel that closes releases the tasks that have not started. A task that has started goes on under the
lease until it is acknowledged. If its process ends before that, it is redelivered and the delivery counts.
While the broker is unreachable, the release is tried again for as long as the leases last. Then the thread
ends.

After a lost connection Celery closes the channel, and then removes from its pool the tasks that were sent to
a child and not accepted. So a task counts as started at first that never starts. It is released later.
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
from millpond.broker.consume.lease_renewer import END_TERM_MS, LeaseRenewer, end_leases
from millpond.broker.consume.lease_resumption import resume_lease
from millpond.broker.errors import BrokerError
from millpond.broker.outcomes import REDELIVER

logger = logging.getLogger(__name__)

#: The errors of calls to the broker: of redis-py, of a socket, and those that are translated already.
BROKER_FAILURES = (RedisError, OSError, BrokerError)

#: Returns the tags of the deliveries in this process that have started, of all channels.
StartedTags = Callable[[], Set[str]]

_open: weakref.WeakSet["ChannelLeases"] = weakref.WeakSet()


class ChannelLeases(LeaseRenewer):
    """Renews the leases of a channel until it is closed and its last started task has ended."""

    searches_orphans = False  # the workers of the queue do

    def __init__(
        self, in_flight: InFlightMessages, *, lease_ms: int, store: Store, started_tags: StartedTags
    ) -> None:
        super().__init__(in_flight, lease_ms=lease_ms, store=store)
        self._started_tags = started_tags
        self._pid = os.getpid()
        #: When the leases of the closed channel have expired for certain (monotonic seconds). 0 while it is
        #: open.
        self._closed_until = 0.0
        self._has_released = False
        #: The tags of messages in flight that had not started at the last check after the release.
        self._dropped = set[str]()

    def start(self) -> None:
        """Start the thread, and settle the messages that are in flight when the process ends."""
        _open.add(self)
        super().start()

    def close(self) -> None:
        """Release the tasks that have not started. The thread ends after the last started task."""
        self.close_later()
        if self._end_if_done():
            self.stop()

    def close_later(self) -> None:
        """Close the leases later, in the thread. For a channel that was garbage-collected and not closed."""
        self._closed_until = time.monotonic() + self.lease_ms / 1000

    def _end_if_done(self) -> bool:
        """Release the unstarted tasks of a closed channel, and end its leases after its last task.

        Return True if the leases have ended.
        """
        if not self._closed_until:
            return False
        try:
            with self.in_flight.lock:
                if self._has_released:
                    self._release_dropped()
                else:
                    self._release_unstarted(self._started_tags())
                if not self.in_flight.count:
                    end_leases(self.store, self.in_flight)
                    self._close_store()
                    return True
        except BROKER_FAILURES as error:
            logger.debug("messages of a closed channel could not be released: %s", error)
            if not self._has_released and time.monotonic() > self._closed_until:
                self._close_store()  # the leases have expired
                return True
        return False

    def _close_store(self) -> None:
        """Close the store. Nothing is left to do when the process ends."""
        _open.discard(self)
        self.store.close()

    def _release_unstarted(self, started: Set[str]) -> None:
        """Settle the finished deliveries, and release all messages whose tags are not among `started`."""
        self.in_flight.settle_finished()
        settle_pending(self.store, self.in_flight, lease_ms=self.lease_ms)
        for lease in self.in_flight.leases.values():
            lease.in_flight = {
                token: delivery for token, delivery in lease.in_flight.items() if delivery.tag in started
            }
            if lease.in_flight:  # the server releases the messages that are not listed here any more
                resume_lease(self.store, self.in_flight, lease, lease_ms=self.lease_ms)
        self._has_released = True

    def _release_dropped(self) -> None:
        """Release the messages of tasks that the pool has dropped: they do not count as started any more.

        Neither does a task that ends, for a moment before it is settled. So this must be true at two checks
        in a row.
        """
        in_flight = [tuple(lease.in_flight.values()) for lease in self.in_flight.leases.values()]
        tags = {delivery.tag for deliveries in in_flight for delivery in deliveries}
        before, self._dropped = self._dropped, tags - self._started_tags()
        if dropped := before & self._dropped:
            self._release_unstarted(tags - dropped)

    def end_with_process(self) -> None:
        """Redeliver the started tasks and release the others, because this process ends."""
        if self._pid != os.getpid():
            return
        started = self._started_tags()
        for lease in self.in_flight.leases.values():
            for delivery in list(lease.in_flight.values()):
                if delivery.tag in started:
                    lease.queue_outcome(delivery, REDELIVER)
        try:
            settle_pending(self.store, self.in_flight, lease_ms=END_TERM_MS)
            end_leases(self.store, self.in_flight)
        except BROKER_FAILURES as error:
            logger.debug("messages of a closed channel become ready when its lease expires: %s", error)


@atexit.register
def _end_all_with_process() -> None:
    """Settle and release the messages of each channel that is not closed, because this process ends."""
    for leases in list(_open):
        leases.end_with_process()
