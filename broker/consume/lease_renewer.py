"""Renew leases from a thread, so that neither a busy event loop nor a long call outside the interpreter
lets them run out.

A handler that holds the interpreter itself for longer than a lease belongs on `prefork`: there the leases
are kept by a process that runs no handler.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.consume import native_threads
from millpond.broker.consume.fetch_call import settle_pending
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.orphans import lease_orphaned_messages
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.control import state
from millpond.broker.scripts import script
from millpond.broker.server import elapsed_seconds

logger = logging.getLogger(__name__)

#: The reply to a renewal if the list of consumers had been deleted.
UNLISTED = 2

#: How long a lease lasts that is about to be ended.
LEAVING_MS = 5_000


class LeaseRenewer:
    """Renews every lease of a process, three times in the life of the shortest, which is `lease_ms`."""

    def __init__(self, in_flight: InFlightMessages, *, lease_ms: int, store: Store) -> None:
        self.in_flight = in_flight
        self.lease_ms = lease_ms
        self._store = store
        #: Under gevent a connection belongs to one thread: the thread's number, and its own store.
        self._apart: tuple[int, Store] | None = None
        #: How often a lease was renewed, and found to have run out.
        self.renewals = 0
        self.losses = 0
        self._stop = threading.Event()
        self._wait: Callable[[float], Any] = lambda _seconds: None

    def start(self) -> None:
        """Start the thread."""
        self._wait = native_threads.start_thread(self._renew_until_stopped, "millpond-leases")

    @property
    def store(self) -> Store:
        """The store of the calling thread."""
        apart = self._apart
        return (
            apart[1] if apart is not None and apart[0] == native_threads.native_thread_id() else self._store
        )

    def stop(self) -> None:
        """End the thread. The leases then expire by themselves."""
        self._stop.set()
        self._wait(1)

    def _renew_until_stopped(self) -> None:
        """Renew every lease three times in its life, ten times as often while the server does not reply."""
        if native_threads.are_green():
            self._apart = native_threads.native_thread_id(), self._store.with_own_connections()
        wait_ms = self.lease_ms / 3
        while not self._stop.wait(wait_ms / 1000):
            leases = [lease for lease in tuple(self.in_flight.leases.values()) if lease.registered]
            answered = [self._renew_lease(lease) and self._seek_orphans(lease) for lease in leases]
            if self._is_over():
                return
            # A server that comes back within a lease must hear of it before the lease is over.
            wait_ms = self.lease_ms / (3 if all(answered) else 30)

    def _is_over(self) -> bool:
        """True if there is nothing more to renew."""
        return False

    def _renew_lease(self, lease: QueueLease) -> bool:
        """Renew one lease, or mark it as lost if it expired. Return False if the server did not reply."""
        consumer, asked, term_ms = lease.consumer, elapsed_seconds(), lease.term_ms(self.lease_ms)
        try:
            held = script("renew_lease").run(self.store.client, lease.keys.all, (consumer, term_ms))
        except (RedisError, OSError) as error:
            logger.debug("queue %s: the lease could not be renewed: %s", lease.queue, error)
            return False
        # The event loop may have begun again meanwhile: only the lease of this request is lost.
        with self.in_flight.lock:
            if lease.consumer != consumer:
                return True
            self.renewals += bool(held)
            lease.orphans_sought &= held != UNLISTED
            self.losses += not held and not lease.lease_lost
            if held:
                lease.leased_until = asked + term_ms / 1000
            else:
                lease.lease_lost = True
        return True

    def _seek_orphans(self, lease: QueueLease) -> bool:
        """Search once for messages whose consumer is not listed. Return False without a reply."""
        if not lease.orphans_sought:
            try:
                lease_orphaned_messages(self.store, lease.keys, lease_ms=lease.term_ms(self.lease_ms))
            except (RedisError, OSError) as error:
                logger.debug("queue %s: the search for orphans failed: %s", lease.queue, error)
                return False
            lease.orphans_sought = True
        return True


def end_leases(store: Store, in_flight: InFlightMessages) -> int:
    """Settle the finished deliveries, release all others in flight, and end the leases.

    Return the number of released messages.
    """
    in_flight.settle_finished()
    settle_pending(store, in_flight, lease_ms=LEAVING_MS)
    returned = 0
    for lease in in_flight.leases.values():
        if lease.registered:
            returned += int(script("end_lease").run(store.client, lease.keys.all, (lease.consumer,)))
        lease.in_flight.clear()
        lease.registered = False
    state.forget_process(store, in_flight.name)
    if returned:
        logger.info("%d messages that were held went back to their queues", returned)
    return returned
