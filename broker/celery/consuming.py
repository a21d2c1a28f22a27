"""Consume a queue of tasks: by fetch calls (consume/fetcher.py), or one message at a time.

A channel in an event loop, as of a worker, fetches up to its prefetch count. `drain_events()` and
`basic_get()` fetch one message at a time, as on kombu's Redis. No message is fetched unless one of these
requests it.
"""

import logging
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import virtual
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from millpond.broker import limits
from millpond.broker.celery.settling import SettlingChannel
from millpond.broker.celery.waiting_tasks import waiting_tasks_of
from millpond.broker.consume import fetch_call
from millpond.broker.consume.control_listener import CONTROL
from millpond.broker.consume.fetcher import FETCH, POLL_SECONDS, WAIT, Fetcher
from millpond.broker.consume.in_flight import UNLIMITED
from millpond.broker.consume.lease_resumption import resume_lease
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerAway, BrokerError
from millpond.broker.message import OWN
from millpond.broker.outcomes import RELEASE, SUCCEEDED

logger = logging.getLogger(__name__)

#: The seconds between two looks for messages in other priority lists, for so long after some were there.
BUSY_GATHER_SECONDS, BUSY_SECONDS = 0.05, 5.0

#: The slots of a worker of Millpond's if Celery sets no prefetch count.
DEFAULT_SLOTS = 100


class KombuMessage(virtual.Message):
    """kombu's message, with its delivery, which is None for a message of remote control."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **kwargs: Any) -> None:
        super().__init__(payload, channel, **kwargs)
        self.delivery: Delivery | None = payload.get("delivery")


class ConsumingChannel(SettlingChannel):
    """A channel's consumers, and its single gets."""

    Message = KombuMessage
    handlers: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: True while it consumes queues of remote control, by kombu's blocking pop.
        self.polls_kombu = False
        #: The number of messages delivered to consumers so far.
        self.delivered = 0
        #: The queues whose messages are settled when they are delivered (`no_ack`).
        self._queues_without_ack: set[str] = set()
        #: The queues of which a fetch got no reply, so the server may have messages in flight for it.
        self._unread_queues: set[str] = set()
        #: When `gather_all_messages` is due (monotonic seconds).
        self.gather_at = 0.0
        #: When it last moved messages (monotonic seconds).
        self._gathered_at = -BUSY_SECONDS
        super().__init__(*args, **kwargs)

    # Consumers

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue: a task queue by fetch calls, a queue of remote control as kombu does."""
        tag = super().basic_consume(queue, no_ack, *args, **kwargs)
        if self.holds_tasks(queue):
            self._queues_without_ack.discard(queue)
            if no_ack:
                self._queues_without_ack.add(queue)
            if self.fetcher is None:
                self.in_flight.queue_order = self.queue_order_strategy
                self.fetcher = fetcher = Fetcher(self, self.in_flight, lease_ms=self.lease_ms)
                self.handlers |= {
                    FETCH: fetcher.on_reply,
                    WAIT: fetcher.on_wait,
                    CONTROL: fetcher.on_control_change,
                }
            self.start_lease_renewer()
            self._start_fetching(self.fetcher, queue)
        if queue in self.active_fanout_queues:
            self.connection.cycle.subscribe(self)
        self.polls_kombu = bool(self.active_queues)
        return tag

    def _start_fetching(self, fetcher: Fetcher, queue: str) -> None:
        """Declare a queue and start fetching from it.

        Raises redis-py's `ConnectionError` for any error of the server, so that Celery tries again.
        """
        if queue in self.auto_delete_queues or queue in self._expires:
            self.queues_to_clean_up.add(queue)
        else:
            self._declare_queue(queue)
        try:
            fetcher.start_queue(self.queue_keys(queue))
        except ResponseError as error:
            raise RedisConnectionError(f"the lease on {queue!r} cannot be taken: {error}") from error
        self.in_flight.learned_prefetch.waiting_tasks = (
            waiting_tasks_of(self) or self.in_flight.learned_prefetch.waiting_tasks
        )

    def _declare_queue(self, queue: str) -> None:
        """Declare a queue with its limits in the pools table. Log which limits in force this changes.

        If the server refuses, this is logged. Raises redis-py's `ConnectionError` if it is unreachable.
        """
        table = self.queues.get(queue, {})
        try:
            changed = limits.declare_limits(
                self.store, queue, table, authoritative=bool(table) or not self.in_flight.of_channel
            )
        except BrokerAway as error:
            raise RedisConnectionError(str(error)) from error
        except BrokerError as error:
            logger.warning("%s. The limits of the queue are unchanged.", error)
        else:
            if changed:
                logger.warning(
                    "this worker has changed limits of queue %s that were in force: %s. The table of the "
                    "worker that started last holds for all: give all workers of a broker one table of %s in "
                    "[queues].",
                    queue,
                    ", ".join(map(str, changed)),
                    queue,
                )

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue. If the server is out of memory, log that: the worker must start, to free memory."""
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError as error:
            logger.warning("queue %s is not bound to its exchange: %s", queue, error)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel a consumer. If it was the last one of its queue on this channel, stop fetching from that.

        If no queue is left, also end the call in progress and send the queued outcomes.
        """
        queue = self._tag_to_queue.get(consumer_tag)
        result = super()._basic_cancel(consumer_tag)
        if self.fetcher is not None and queue is not None:
            if queue not in self._active_queues:
                self.fetcher.stop_queue(queue)
            if not self.fetcher.active and self.in_flight.of_channel and not self.closed:
                self.fetcher.finish_call()
                self.fetcher.end_wait()
                self.send_outcomes()
        self.polls_kombu = bool(self.active_queues)
        return result

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Set the maximum of messages in flight. Zero and None mean no limit.

        For a worker of Millpond's, `prefetch_count` is the number of slots. The pool's prefetch is added to
        it.
        """
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.in_flight.slots = prefetch_count or (UNLIMITED if self.in_flight.of_channel else DEFAULT_SLOTS)

    @property
    def active_queues(self) -> list[str]:
        """The queues that kombu's own blocking pop consumes: those of remote control."""
        return [queue for queue in super().active_queues if not self.holds_tasks(queue)]

    def new_client(self) -> Any:
        """Return a new client for the poller to watch."""
        return self._create_client(asynchronous=True)

    # Deliveries

    def deliver(self, delivery: Delivery) -> None:
        """Deliver a message to kombu's consumer of its queue. If that needs no ack, settle it before."""
        self.delivered += 1
        if delivery.queue in self._queues_without_ack:
            self.settle(delivery, SUCCEEDED)
        self.connection._deliver(to_kombu_message(delivery), delivery.queue)

    def release_undelivered(self, delivery: Delivery) -> None:
        """Release a message that was not delivered: its consumer was cancelled after it was fetched."""
        self.delivered -= 1
        self.settle(delivery, RELEASE)

    def gather_all_messages(self) -> None:
        """Move messages of stock clients with other priority steps to the ready lists.

        Called from `gather_at` on: once a second, and more often for a time after such messages came.
        """
        now = monotonic()
        if self.fetcher is not None:
            for queue in self.fetcher.active:
                if self.gather_messages(queue):
                    self.in_flight.leases[queue].fetchable = True
                    self._gathered_at = now
        self.gather_at = now + POLL_SECONDS
        if now < self._gathered_at + BUSY_SECONDS:
            self.gather_at = now + BUSY_GATHER_SECONDS
            self.connection.cycle.wake_up_in(BUSY_GATHER_SECONDS)

    def _poll_error(self, type: str, **options: Any) -> None:
        """Handle the error of a connection: reading from it raises the error."""
        if type in (FETCH, WAIT, CONTROL):
            self.handlers[type]()
        else:
            super()._poll_error(type, **options)

    # Single gets

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Fetch one message, or return None if the queue is empty. With `no_ack` it is settled at once."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack and message.delivery is not None:
            self.settle(message.delivery, SUCCEEDED)
        return message

    def _get(self, queue: str) -> dict[str, Any]:
        """Fetch one message under a lease, and return it as kombu delivers it. Raises `queue.Empty`."""
        if not self.holds_tasks(queue):
            return dict(super()._get(queue))
        self.gather_messages(queue)
        self.start_lease_renewer()
        lease = self.in_flight.lease_on(self.queue_keys(queue))
        fetched: list[Delivery] = []
        while self._try_fetch(lease, fetched) and not fetched:
            pass  # the message could not be used, or the lease was lost
        if lease.outcomes:
            self.send_outcomes()
        self.restart_expiry(queue)
        if not fetched:
            raise Empty
        return to_kombu_message(fetched[0])

    def _try_fetch(self, lease: QueueLease, fetched: list[Delivery]) -> bool:
        """Try to fetch one message, and append it to `fetched`. Return False if the queue has none.

        Return True without a message in `fetched` if the lease was lost, or if the message cannot be decoded
        or is not due. Then the caller may try again.
        """
        if lease.queue in self._unread_queues or lease.lease_lost:
            # This returns messages to the queue that came in a reply which was never read.
            resume_lease(self.store, self.in_flight, lease, lease_ms=self.lease_ms)
            self._unread_queues.discard(lease.queue)
        request = FetchRequest(lease, 1, 1, lease.take_outcomes())
        try:
            reply = fetch_call.call_and_wait(self.store, request, lease_ms=self.lease_ms)
        except BaseException:
            self._unread_queues.add(lease.queue)
            raise
        if not reply.lease:
            self.in_flight.replace_lost_lease(lease)
            return True
        fetch_call.accept_messages(lease, reply, fetched.append)
        return bool(reply.messages)


def to_kombu_message(delivery: Delivery) -> dict[str, Any]:
    """Return the message of a delivery as kombu delivers it, with the delivery tag and `redelivered`."""
    message = delivery.message
    info = message.properties.get("delivery_info")
    redelivered = delivery.deliveries > 0
    properties = {
        **message.properties,
        "delivery_tag": delivery.tag,
        "delivery_info": {
            **(info if isinstance(info, dict) else {"exchange": "", "routing_key": delivery.queue}),
            "redelivered": redelivered,
        },
    }
    headers = {**message.headers, "redelivered": True} if redelivered else message.headers
    if message.own:  # `of` names the task to which this header belongs, even if a handler copies the header
        headers = {**headers, OWN: {**message.own, "of": message.id}}
    return {**message.envelope, "headers": headers, "properties": properties, "delivery": delivery}
