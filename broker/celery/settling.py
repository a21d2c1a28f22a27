"""Settle the deliveries of a channel, release the others when it is closed, acknowledge future changes.

The channel with which `millpond worker` consumes its queues uses the messages in flight of its process, which
outlive the channel. Every other channel has messages in flight of its own. If it runs in an event loop,
outcomes are sent with the next call. Otherwise `message.ack()` returns when the broker has the outcome, as on
kombu's Redis.

A process that starts no more tasks acknowledges all changes of the control state in advance: a worker that is
shutting down, and a program that uses a channel of its own.
"""

import logging
import sys
import weakref
from collections.abc import Set
from threading import get_ident
from typing import Any

from kombu.transport import virtual

from millpond.broker.celery.publishing import PublishingChannel
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
        # kombu would restore messages when the process ends, and keep the channel alive until then. Here the
        # leases of the channel do that.
        self._on_collect.cancel()

    def can_consume(self) -> bool:
        """True if there is room for one more message."""
        return self.channel.fetcher is None or self.channel.in_flight.room > 0

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. For `worker_disable_prefetch` Celery replaces `can_consume` by a function."""
        super().__setattr__(name, value)
        if name == "can_consume":
            self.channel.in_flight.may_fetch = value

    def append(self, message: Any, delivery_tag: str) -> None:
        """Do nothing: the message was recorded as in flight before it was delivered."""

    def get(self, delivery_tag: str) -> Any:
        """Raise `KeyError`: no messages are kept here. `in_flight.find_delivery` returns those in flight."""
        raise KeyError(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Settle a delivery as succeeded. A second acknowledgement changes nothing."""
        self.channel.settle_tag(delivery_tag, SUCCEEDED)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Make a message a dead letter, or return it to the end of its queue with `requeue`."""
        self.channel.settle_tag(delivery_tag, REQUEUE if requeue else REJECTED)

    def restore_unacked(self) -> list[Any]:
        """Release the messages that this channel has in flight."""
        self.channel.release_messages()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing: the messages were released when the channel was closed."""


class SettlingChannel(PublishingChannel):
    """A channel's messages in flight, and how they are settled."""

    QoS = QoS
    #: The term of a lease, and of each queue that has a term of its own, which is longer.
    lease_seconds = LEASE_SECONDS
    lease_terms_ms: dict[str, int] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetcher: Fetcher | None = None
        self._forget_messages()
        super().__init__(*args, **kwargs)
        self.use_in_flight(self.in_flight)

    def _forget_messages(self) -> None:
        """Begin with no messages in flight, and with no queues to clean up."""
        self.in_flight = InFlightMessages(of_channel=True)
        self.queues_to_clean_up = set()

    def use_in_flight(self, in_flight: InFlightMessages) -> None:
        """Use the messages in flight of a worker process, which outlive this channel."""
        self.in_flight = in_flight
        if self.lease_terms_ms:
            in_flight.lease_terms_ms = self.lease_terms_ms

    @property
    def lease_ms(self) -> int:
        """The term of a lease."""
        return int(self.lease_seconds * 1000)

    def start_lease_renewer(self) -> None:
        """Start the thread that renews the leases, unless it runs already."""
        if self.in_flight.lease_renewer is not None:
            return
        if not self.in_flight.of_channel:
            renewer = LeaseRenewer(self.in_flight, lease_ms=self.lease_ms, store=self.store)
        else:
            renewer = ChannelLeases(
                self.in_flight, lease_ms=self.lease_ms, store=self.store, started_tags=find_started_tags
            )
            weakref.finalize(self, renewer.close_later).atexit = False
            # The user of a channel starts no tasks, so no caller of cancel() or drain() needs to wait for it.
            self.acknowledge_future_changes()
        self.in_flight.lease_renewer = renewer
        renewer.start()

    # Settling

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Queue the outcome of a delivery for the next call, or send it now if no event loop makes calls."""
        if not self.is_in_loop and self.in_flight.of_channel:
            self._settle_at_once(delivery, outcome)
        else:
            self.in_flight.queue_outcome(delivery, outcome)
            if self.fetcher is not None:
                self.fetcher.wake()

    @property
    def is_in_loop(self) -> bool:
        """True if called in the thread of an event loop that makes the calls of this channel's fetcher."""
        cycle = getattr(self.connection, "cycle", None)  # a closed channel has no connection
        is_fetching = self.fetcher is not None and bool(self.fetcher.active)
        return is_fetching and cycle is not None and cycle.hub is not None and cycle.thread == get_ident()

    def settle_tag(self, tag: str, outcome: Outcome) -> None:
        """Settle the delivery with this tag, in flight on this channel or on another of its connection."""
        # Two consumers of one queue share the callback of their connection, whatever their channels are.
        for channel in (self, *(getattr(self.connection, "channels", None) or ())):
            delivery = channel.in_flight.find_delivery(tag)
            if delivery is not None:
                channel.settle(delivery, outcome)
                return

    def _settle_at_once(self, delivery: Delivery, outcome: Outcome) -> None:
        """Send the outcome of a delivery now, in a call of its own, and wait for the reply."""
        lease = delivery.lease
        if lease.in_flight.pop(delivery.token, None) is None:
            return
        lease.fetched_and_settled += 1
        request = FetchRequest(lease, 0, 0, [(delivery, outcome)])
        fetch_call.call_and_wait(self.store, request, lease_ms=self.lease_ms)

    def send_outcomes(self) -> None:
        """Send all queued outcomes now, and wait for the replies."""
        fetch_call.settle_pending(self.store, self.in_flight, lease_ms=self.lease_ms)

    def release_messages(self) -> None:
        """Release all messages in flight of this channel."""
        for lease in self.in_flight.leases.values():
            for delivery in reversed(list(lease.in_flight.values())):
                lease.queue_outcome(delivery, RELEASE)
        self.send_outcomes()

    def settle_now(self) -> None:
        """Settle all finished deliveries without the event loop. Any thread may call this.

        A call of the fetcher in progress is left to it: `finish_call` delivers its messages. If the broker is
        unreachable, this is logged. The outcomes stay queued, and `leave_queues` tries again.
        """
        with self.in_flight.lock:
            self.in_flight.settle_finished()
            try:
                with translate_errors("settling"):
                    self.send_outcomes()
            except BrokerError as error:
                logger.warning("%s Settling again before this process ends.", error)

    # Ending

    def finish_call(self) -> None:
        """Wait for the reply to the fetcher's call in progress, and deliver its messages."""
        with self.in_flight.lock:
            if self.fetcher is not None:
                self.fetcher.finish_call()

    def acknowledge_future_changes(self) -> None:
        """Acknowledge all later cancellations and drains in advance.

        Nothing starts in this process any more, so no caller needs to wait for it. Raises `BrokerAway`.
        """
        state.acknowledge_epoch(self.store, self.in_flight.name, state.ALL_FUTURE)

    def leave_queues(self) -> None:
        """Settle the finished deliveries, release the others, end the leases. Raises redis-py's errors."""
        with self.in_flight.lock:
            self._drop_call()
            end_leases(self.store, self.in_flight)

    def _drop_call(self) -> None:
        """Forget the fetcher's call in progress, and queue its outcomes again."""
        if self.fetcher is not None:
            self.fetcher.drop_call()

    def close(self) -> None:
        """Send queued outcomes, release messages whose tasks have not started, and close the channel."""
        if not self.closed and self.in_flight.of_channel:
            if self.fetcher is not None:
                self.fetcher.close()
            renewer = self.in_flight.lease_renewer
            if renewer is not None:
                renewer.close()
            self._delete_unused_keys()
        super().close()

    def _delete_unused_keys(self) -> None:
        """Delete the keys of the queues to clean up that no consumer needs any more."""
        for queue in self.queues_to_clean_up:
            try:
                delete_if_unused(self.store, queue)
            except BrokerError as error:
                logger.debug("keys of queue %s are left: %s", queue, error)

    def _after_fork(self) -> None:
        """Forget the messages in flight and the connections in a forked child: they belong to its parent."""
        super()._after_fork()
        self.__dict__.pop("store", None)
        self.__dict__.pop("_shared_client", None)
        self.fetcher = None
        self._forget_messages()


def find_started_tags() -> Set[str]:
    """Return the tags of the deliveries that a worker of Celery's in this process has started.

    Without such a worker there are none. A task that was sent to a prefork child counts as started: Celery
    records its start later, when the child replies.
    """
    worker_state = sys.modules.get("celery.worker.state")
    if worker_state is None:
        return frozenset()
    # Celery's weak sets cannot be iterated while threads add to them, but their plain sets of references can
    # be copied.
    active = [reference() for reference in tuple(worker_state.active_requests.data)]
    reserved = [reference() for reference in tuple(worker_state.reserved_requests.data)]
    started = [*active, *filter(_was_sent_to_child, reserved)]
    return {getattr(request.message, "delivery_tag", "") for request in started if request is not None}


def _was_sent_to_child(request: Any) -> bool:
    """True if the task of a request was sent to a prefork child."""
    job_reference = getattr(request, "_apply_result", None)
    return job_reference is not None and type(job_reference()).__module__ == "billiard.pool"
