"""Settle the deliveries of a channel, and release the rest when it is closed.

The channel with which `millpond worker` consumes its queues uses the messages in flight of its process, which
outlive the channel. Every other channel has messages in flight of its own. If an event loop drives it,
outcomes go out with the next call. Otherwise `message.ack()` returns when the broker has the outcome, as on
kombu's Redis.
"""

import logging
import sys
import weakref
from collections.abc import Set
from threading import get_ident
from typing import Any

from kombu.transport import virtual

from millpond.broker.celery.publishing import Publishing
from millpond.broker.connection import translate_errors
from millpond.broker.consume import fetch_call
from millpond.broker.consume.channel_leases import ChannelLeases
from millpond.broker.consume.fetcher import Fetcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LeaseRenewer, end_leases
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.control import state
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerError
from millpond.broker.inspect.delete import delete_if_unused
from millpond.broker.outcomes import REJECTED, RELEASE, REQUEUE, SUCCEEDED, Outcome

logger = logging.getLogger(__name__)

#: The default length of a lease.
LEASE_SECONDS = 15.0


class QoS(virtual.QoS):
    """Turns acknowledgements into outcomes. `InFlightMessages` counts the messages in flight."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        # It would keep the channel for ever; the channel's leases end with their process by themselves.
        self._on_collect.cancel()

    def can_consume(self) -> bool:
        """True if there is room for one more message."""
        return self.channel.fetcher is None or self.channel.in_flight.room > 0

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. For `worker_disable_prefetch` Celery replaces `can_consume` by its own method."""
        super().__setattr__(name, value)
        if name == "can_consume":
            self.channel.in_flight.may_fetch = value

    def append(self, message: Any, delivery_tag: str) -> None:
        """Do nothing: the message was recorded as in flight before it was delivered."""

    def get(self, delivery_tag: str) -> Any:
        """Raise `KeyError`: kombu keeps no messages here. `in_flight.find_delivery` has those in flight."""
        raise KeyError(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Settle a delivery as succeeded. A second acknowledgement changes nothing."""
        self.channel.settle_tag(delivery_tag, SUCCEEDED)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message at the back of its queue, or make it a dead letter."""
        self.channel.settle_tag(delivery_tag, REQUEUE if requeue else REJECTED)

    def restore_unacked(self) -> list[Any]:
        """Release the messages that this channel has in flight."""
        self.channel.release()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing: a channel that closes has released its messages."""


class Settling(Publishing):
    """A channel's messages in flight, and their ends."""

    QoS = QoS
    #: The term of the shortest lease, and of each queue that has one of its own.
    lease_seconds = LEASE_SECONDS
    lease_terms_ms: dict[str, int] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetcher: Fetcher | None = None
        self._make_registry()
        super().__init__(*args, **kwargs)
        self.use_in_flight(self.in_flight)

    def _make_registry(self) -> None:
        """Begin with no message in flight and no queue to clean up."""
        self.in_flight = InFlightMessages(of_channel=True)
        self.passing = set()

    def use_in_flight(self, in_flight: InFlightMessages) -> None:
        """Consume for a worker process: its messages in flight outlive this channel."""
        self.in_flight = in_flight
        if self.lease_terms_ms:
            in_flight.lease_terms_ms = self.lease_terms_ms

    @property
    def lease_ms(self) -> int:
        """The length of a lease."""
        return int(self.lease_seconds * 1000)

    def keep_leases(self) -> None:
        """Start renewing the leases."""
        if self.in_flight.lease_renewer is not None:
            return
        if not self.in_flight.of_channel:
            renewer = LeaseRenewer(self.in_flight, lease_ms=self.lease_ms, store=self.store)
        else:
            renewer = ChannelLeases(
                self.in_flight, lease_ms=self.lease_ms, store=self.store, started_tags=started_tags
            )
            weakref.finalize(self, renewer.retire).atexit = False
            # It starts no tasks, so no caller of cancel() waits for it.
            self.acknowledge_all_future()
        self.in_flight.lease_renewer = renewer
        renewer.start()

    # Settling

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Queue the outcome of a delivery for the next call, or send it now if no loop sends it."""
        if not self.is_driven and self.in_flight.of_channel:
            self._settle_at_once(delivery, outcome)
        else:
            self.in_flight.queue_outcome(delivery, outcome)
            if self.fetcher is not None:
                self.fetcher.wake()

    @property
    def is_driven(self) -> bool:
        """True in the thread of an event loop that fetches for this channel, and so sends outcomes."""
        cycle = getattr(self.connection, "cycle", None)  # a closed channel has no connection
        is_fetching = self.fetcher is not None and bool(self.fetcher.active)
        return is_fetching and cycle is not None and cycle.hub is not None and cycle.thread == get_ident()

    def settle_tag(self, tag: str, outcome: Outcome) -> None:
        """Settle a delivery that kombu knows by its tag."""
        # Two consumers of one queue share their connection's callback, so it may be another channel's.
        for channel in (self, *(getattr(self.connection, "channels", None) or ())):
            delivery = channel.in_flight.find_delivery(tag)
            if delivery is not None:
                channel.settle(delivery, outcome)
                return

    def _settle_at_once(self, delivery: Delivery, outcome: Outcome) -> None:
        """Send the outcome of a delivery now, in a call of its own."""
        lease = delivery.lease
        if lease.in_flight.pop(delivery.token, None) is None:
            return
        lease.fetched_and_settled += 1
        request = FetchRequest(lease, 0, 0, [(delivery, outcome)])
        fetch_call.call_and_wait(self.store, request, lease_ms=self.lease_ms)

    def flush(self) -> None:
        """Send the outcomes that wait to be sent."""
        fetch_call.settle_pending(self.store, self.in_flight, lease_ms=self.lease_ms)

    def release(self) -> None:
        """Release the messages in flight here, no delivery counted."""
        for lease in self.in_flight.leases.values():
            for delivery in reversed(list(lease.in_flight.values())):
                lease.queue_outcome(delivery, RELEASE)
        self.flush()

    def settle_now(self) -> None:
        """Settle all finished deliveries without the event loop. Any thread may call this.

        If the broker is unreachable, they stay queued and `leave_queues` tries again.
        """
        with self.in_flight.lock:
            self.in_flight.settle_finished()
            self._abandon_call()
            try:
                with translate_errors("settling"):
                    self.flush()
            except BrokerError as error:
                logger.warning("%s Settling again before this process ends.", error)

    # Ending

    def finish_call(self) -> None:
        """Wait for the reply of a call that is under way, and take in its messages."""
        with self.in_flight.lock:
            if self.fetcher is not None:
                self.fetcher.finish()

    def acknowledge_all_future(self) -> None:
        """Acknowledge all future cancellations, so that `cancel()` does not wait for this process."""
        state.acknowledge_epoch(self.store, self.in_flight.name, state.ALL_FUTURE)

    def leave_queues(self) -> None:
        """Settle the finished deliveries, release the others, and end the leases."""
        with self.in_flight.lock:
            self._abandon_call()
            end_leases(self.store, self.in_flight)

    def _abandon_call(self) -> None:
        """Forget the call of the fetcher that is under way."""
        if self.fetcher is not None:
            self.fetcher.drop_call()

    def close(self) -> None:
        """Send the outcomes that wait, release the tasks that have not started, and close."""
        if not self.closed and self.in_flight.of_channel:
            if self.fetcher is not None:
                self.fetcher.close()
            renewer = self.in_flight.lease_renewer
            if renewer is not None:
                renewer.close()
            self._delete_unused_keys()
        super().close()

    def _delete_unused_keys(self) -> None:
        """Delete the keys of deleted queues that no consumer uses any more."""
        for queue in self.passing:
            try:
                delete_if_unused(self.store, queue)
            except BrokerError as error:
                logger.debug("keys of queue %s are left: %s", queue, error)

    def _after_fork(self) -> None:
        """Forget the in-flight messages in a forked child: they are its parent's."""
        super()._after_fork()
        self.__dict__.pop("store", None)
        self.__dict__.pop("_shared_client", None)
        self.fetcher = None
        self._make_registry()


def started_tags() -> Set[str]:
    """Return the tags of the deliveries that run in this process, if a worker of Celery's does in it.

    A task that was sent to a prefork child is one of them: Celery notes its start when the child replies.
    """
    worker = sys.modules.get("celery.worker.state")
    if worker is None:
        return frozenset()
    # Copies of the plain sets: threads add to them meanwhile.
    active = [reference() for reference in tuple(worker.active_requests.data)]
    reserved = [reference() for reference in tuple(worker.reserved_requests.data)]
    started = [*active, *filter(_is_with_child, reserved)]
    return {getattr(request.message, "delivery_tag", "") for request in started if request is not None}


def _is_with_child(request: Any) -> bool:
    """True for a task that was sent to a prefork child."""
    sent = getattr(request, "_apply_result", None)
    return sent is not None and type(sent()).__module__ == "billiard.pool"
