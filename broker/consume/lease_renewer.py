"""Renew leases from a thread, so that they do not expire while the event loop is busy.

A handler that keeps the interpreter's lock for longer than a lease belongs on `prefork`: there the leases are
renewed by a process that runs no handler.

Expired leases are found in the list of a queue's consumers. If somebody deletes that list, messages in flight
of dead consumers would stay so for ever. So the thread searches for them when the process begins to consume a
queue, and when its own lease turns out not to be listed.
"""

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.consume import native_threads
from millpond.broker.consume.fetch_call import settle_pending
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.control import state
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script
from millpond.broker.server import elapsed_seconds

logger = logging.getLogger(__name__)

#: The reply to a renewal if the list of consumers had been deleted.
UNLISTED = 2

#: Keys that the server scans in one step of the search for orphaned messages.
_KEYS_A_STEP = 1_000

#: The term of a lease that is about to be ended.
END_TERM_MS = 5_000


class LeaseRenewer:
    """The thread that renews every lease of a process, three times within the shortest term (`lease_ms`)."""

    #: True if the thread searches each queue once for messages whose consumer is not listed.
    searches_orphans = True

    def __init__(self, in_flight: InFlightMessages, *, lease_ms: int, store: Store) -> None:
        self.in_flight = in_flight
        self.lease_ms = lease_ms
        self._store = store
        #: Under gevent a connection belongs to one thread: the id of this thread, and a store for it alone.
        self._own_store: tuple[int, Store] | None = None
        #: How often a lease was renewed, and how often it turned out to have expired.
        self.renewals = 0
        self.losses = 0
        self._stop = threading.Event()
        self._wait: Callable[[float], Any] = lambda _seconds: None

    def start(self) -> None:
        """Start the thread."""
        self._wait = native_threads.start_thread(self._renew_until_stopped, "millpond-leases")

    @property
    def store(self) -> Store:
        """The store for the calling thread."""
        if self._own_store is not None:
            thread_id, store = self._own_store
            if thread_id == native_threads.native_thread_id():
                return store
        return self._store

    def stop(self) -> None:
        """End the thread, and wait up to a second for its end. The leases then expire by themselves."""
        self._stop.set()
        self._wait(1)

    def _renew_until_stopped(self) -> None:
        """Renew every lease three times within its term, ten times as often if the server does not reply."""
        if native_threads.threads_are_greenlets():
            self._own_store = native_threads.native_thread_id(), self._store.with_own_connections()
        wait_ms = self.lease_ms / 3
        while not self._stop.wait(wait_ms / 1000):
            leases = [lease for lease in tuple(self.in_flight.leases.values()) if lease.registered]
            has_replied = [self._renew_lease(lease) and self._search_orphans(lease) for lease in leases]
            if self._end_if_done():
                return
            # When the server is back within a term, the lease must be renewed before it expires.
            wait_ms = self.lease_ms / (3 if all(has_replied) else 30)

    def _end_if_done(self) -> bool:
        """End the leases if they are not needed any more. Return True if they have ended."""
        return False

    def _renew_lease(self, lease: QueueLease) -> bool:
        """Renew one lease, or mark it as lost if it has expired. Return False if the server did not reply."""
        consumer, sent_at, term_ms = lease.consumer, elapsed_seconds(), lease.term_ms(self.lease_ms)
        try:
            reply = script("renew_lease").run(self.store.client, lease.keys.for_scripts, (consumer, term_ms))
        except (RedisError, OSError) as error:
            logger.debug("queue %s: the lease could not be renewed: %s", lease.queue, error)
            return False
        with self.in_flight.lock:
            if lease.consumer != consumer:  # the event loop has begun a new lease, which is not concerned
                return True
            self.renewals += bool(reply)
            lease.orphans_searched &= reply != UNLISTED
            self.losses += not reply and not lease.lease_lost
            if reply:
                lease.leased_until = sent_at + term_ms / 1000
            else:
                lease.lease_lost = True
        return True

    def _search_orphans(self, lease: QueueLease) -> bool:
        """Search for messages whose consumer is not listed, if that is to be done and was not done before.

        Return False if the server did not reply.
        """
        if self.searches_orphans and not lease.orphans_searched:
            try:
                lease_orphaned_messages(self.store, lease.keys, lease_ms=lease.term_ms(self.lease_ms))
            except (RedisError, OSError) as error:
                logger.debug("queue %s: the search for orphans failed: %s", lease.queue, error)
                return False
            lease.orphans_searched = True
        return True


def end_leases(store: Store, in_flight: InFlightMessages) -> int:
    """Settle the finished deliveries, release all others in flight, end the leases, and forget the process.

    Return the number of released messages. Raises redis-py's errors, and `BrokerError` if the acknowledgement
    of the process cannot be removed.
    """
    in_flight.settle_finished()
    settle_pending(store, in_flight, lease_ms=END_TERM_MS)
    released = 0
    for lease in in_flight.leases.values():
        if lease.registered:
            released += int(script("end_lease").run(store.client, lease.keys.for_scripts, (lease.consumer,)))
        lease.in_flight.clear()
        lease.registered = False
    state.forget_process(store, in_flight.name)
    if released:
        logger.info("%d messages in flight were released to their queues", released)
    return released


def lease_orphaned_messages(store: Store, keys: QueueKeys, *, lease_ms: int) -> int:
    """Give each unlisted consumer with messages in flight a lease, and return the number of these messages.

    A living consumer renews the lease. The messages of a dead one become ready when the lease expires.
    Raises redis-py's errors.
    """
    count, prefix = 0, keys.in_flight("")
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    for key in store.client.scan_iter(pattern, count=_KEYS_A_STEP):
        args = (key[len(prefix.encode()) :], lease_ms)
        count += int(script("adopt").run(store.client, keys.for_scripts, args))
    if count:
        logger.warning(
            "queue %s: %d messages in flight had no listed consumer, as after %s was deleted: they go back "
            "to the queue unless their consumer renews its lease",
            keys.queue,
            count,
            keys.consumers,
        )
    return count
