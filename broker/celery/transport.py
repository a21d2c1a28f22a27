"""The transport for Celery: kombu's Redis transport with other ways to publish to and consume a queue.

Connections, Sentinel, TLS, health checks, fanout and the queues of remote control are inherited. A queue of
tasks is published to by `publish.lua` and consumed by a fetcher (consume/fetcher.py); where its ready
messages lie is unchanged, so that stock clients, Flower and KEDA find what they expect. Chosen by
`broker_transport = "millpond.broker.transport:Transport"`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from json import dumps
from queue import Empty
from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from millpond.broker import limits, publish
from millpond.broker.celery.connection import Connecting, ConnectingToMaster, TransportByUrl, url_of
from millpond.broker.celery.poller import Poller, Tick
from millpond.broker.connection import COPY_SHARE, Store, translate_errors
from millpond.broker.consume import fetch_call
from millpond.broker.consume.fetcher import CONTROL, FETCH, PATIENCE_SECONDS, WAIT, Fetcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LeaseRenewer, leave
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.control import state
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerAway, BrokerError, QueueFull
from millpond.broker.inspect.purge import purge
from millpond.broker.keys import QueueKeys
from millpond.broker.message import Outgoing, moment_ms
from millpond.broker.outcomes import REDELIVER, REJECTED, RELEASE, SUCCEEDED, Outcome

logger = logging.getLogger(__name__)

#: The default length of a lease.
LEASE_SECONDS = 15.0


class Message(virtual.Message):
    """kombu's message with its delivery; None for a message of remote control."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **kwargs: Any) -> None:
        super().__init__(payload, channel, **kwargs)
        self.delivery: Delivery | None = payload.get("delivery")


class QoS(virtual.QoS):
    """Turns acknowledgements into outcomes; `InFlightMessages` counts what is in flight."""

    def can_consume(self) -> bool:
        """True if there is room for one more message."""
        return self.channel.fetcher is None or self.channel.in_flight.room > 0

    def append(self, message: Any, delivery_tag: str) -> None:
        """Do nothing: the message was noted as in flight before it was delivered."""

    def get(self, delivery_tag: str) -> Any:
        """Raise `KeyError`: settled messages are not kept."""
        raise KeyError(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Settle a delivery as succeeded; a second acknowledgement changes nothing."""
        self.channel.settle_tag(delivery_tag, SUCCEEDED)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Redeliver a message, or make it a dead letter."""
        self.channel.settle_tag(delivery_tag, REDELIVER if requeue else REJECTED)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restore nothing: messages in flight outlive the channel, under their lease.

        Called when the channel is closed. kombu's finalizer would keep the channel for ever, so it is
        cancelled.
        """
        del stderr
        self._on_collect.cancel()


class Channel(Connecting):
    """kombu's channel to one server, with Millpond's publishing and consuming of task queues."""

    QoS = QoS
    Message = Message
    from_transport_options = (
        *stock.Channel.from_transport_options,
        "in_flight",
        "lease_seconds",
        "lease_terms_ms",
        "queues",
        "send_copies",
    )
    #: What the process has in flight; a channel without it keeps its own.
    in_flight: InFlightMessages
    #: The term of the shortest lease, and of each queue that has one of its own.
    lease_seconds = LEASE_SECONDS
    lease_terms_ms: dict[str, int] = {}
    #: Replicas that must have a message before a send returns.
    send_copies = 0
    #: Queue -> its limits in the pools table.
    queues: dict[str, dict[str, Any]] = {}
    handlers: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetcher: Fetcher | None = None
        #: True while it consumes queues of remote control, by kombu's blocking pop.
        self.polls_kombu = False
        super().__init__(*args, **kwargs)
        if not isinstance(getattr(self, "in_flight", None), InFlightMessages):
            self.in_flight = InFlightMessages()
        if self.lease_terms_ms:
            self.in_flight.lease_terms_ms = self.lease_terms_ms
        self.handlers = {
            **self.handlers,
            FETCH: self._on_reply,
            WAIT: self._on_wait,
            CONTROL: self._on_control,
        }

    # Consuming

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue: a task queue by fetch calls, a queue of remote control as kombu does."""
        answer = super().basic_consume(queue, *args, **kwargs)
        if self._holds_tasks(queue):
            if self.fetcher is None:
                self.fetcher = Fetcher(self, self.in_flight, lease_ms=int(self.lease_seconds * 1000))
                self._keep_leases()
            self._begin(self.fetcher, queue)
        self.polls_kombu = bool(self.active_queues)
        return answer

    def _begin(self, fetcher: Fetcher, queue: str) -> None:
        """Declare a queue and start fetching; an error counts as a lost connection, so Celery retries."""
        try:
            limits.declare(self.store, queue, self.queues.get(queue, {}), authoritative=True)
        except BrokerAway as error:
            raise RedisConnectionError(str(error)) from error
        except BrokerError as error:
            logger.warning("%s. The limits of the queue are unchanged.", error)
        try:
            fetcher.start(self.queue_keys(queue))
        except ResponseError as error:
            raise RedisConnectionError(f"the lease on {queue!r} cannot be taken: {error}") from error

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue; a full server refuses it, and a worker must still start to empty the queue."""
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError as error:
            logger.warning("queue %s is not bound to its exchange: %s", queue, error)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        if self.fetcher is not None and queue is not None:
            self.fetcher.stop(queue)
        answer = super()._basic_cancel(consumer_tag)
        self.polls_kombu = bool(self.active_queues)
        return answer

    def new_client(self) -> Any:
        """Return a client whose connection the poller watches."""
        return self._create_client(asynchronous=True)

    def deliver(self, delivery: Delivery) -> None:
        """Deliver as kombu does, to the consumer of the queue."""
        self.connection._deliver(for_kombu(delivery), delivery.queue)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Set the number of slots, to which the prefetch is added.

        Zero, kombu's 'no limit', is a hundred here.
        """
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.in_flight.slots = prefetch_count or 100

    @property
    def active_queues(self) -> list[str]:
        """The queues for kombu's own blocking pop: those of remote control."""
        return [queue for queue in super().active_queues if not self._holds_tasks(queue)]

    def _holds_tasks(self, queue: str) -> bool:
        return not (
            queue in self.active_fanout_queues or queue in self._fanout_queues or is_remote_control(queue)
        )

    def _on_reply(self) -> None:
        if self.fetcher is not None:
            self.fetcher.on_reply()

    def _on_wait(self) -> None:
        if self.fetcher is not None:
            self.fetcher.on_wait()

    def _on_control(self) -> None:
        if self.fetcher is not None:
            self.fetcher.on_control_change()

    def _keep_leases(self) -> None:
        if self.in_flight.lease_renewer is None:
            renewer = LeaseRenewer(self.in_flight, lease_ms=int(self.lease_seconds * 1000), store=self.store)
            self.in_flight.lease_renewer = renewer
            renewer.start()

    def _get(self, queue: str) -> dict[str, Any]:
        """Fetch one message under a lease, for `basic_get` and kombu's SimpleQueue."""
        if not self._holds_tasks(queue):
            return dict(super()._get(queue))
        lease = self.in_flight.lease(self.queue_keys(queue))
        self._keep_leases()
        request = FetchRequest(lease, 1, 1, lease.take_outcomes())
        fetched: list[dict[str, Any]] = []
        try:
            reply = fetch_call.call(self.store, request, lease_ms=self._lease_ms)
        except BaseException:
            self.in_flight.lose(lease)  # what the lost reply brought comes back with this lease
            raise
        fetch_call.accept(lease, reply, lambda delivery: fetched.append(for_kombu(delivery)))
        if not fetched:
            raise Empty
        return fetched[0]

    @property
    def _lease_ms(self) -> int:
        return int(self.lease_seconds * 1000)

    # Settling

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Queue the outcome of a delivery; the next call carries it."""
        self.in_flight.settle(delivery, outcome)
        if self.fetcher is not None:
            self.fetcher.wake()

    def settle_tag(self, tag: str, outcome: Outcome) -> None:
        """Queue the outcome of a delivery that kombu knows by its tag."""
        delivery = self.in_flight.find(tag)
        if delivery is not None:
            self.settle(delivery, outcome)

    def settle_now(self) -> None:
        """Settle all finished deliveries without the event loop; for any thread.

        If the broker is away, they stay queued and `leave` tries again.
        """
        with self.in_flight.lock:
            self.in_flight.settle_finished()
            self._abandon_call()
            try:
                with translate_errors("settling"):
                    fetch_call.settle_pending(self.store, self.in_flight, lease_ms=self._lease_ms)
            except BrokerError as error:
                logger.warning("%s Settling again before this process ends.", error)

    def finish_call(self) -> None:
        """Wait for the reply of a call that is under way, and take in what it brings."""
        with self.in_flight.lock:
            if self.fetcher is not None:
                self.fetcher.finish()

    def acknowledge_all_future(self) -> None:
        """Acknowledge all future cancellations, so that `cancel()` does not wait for a stopping process."""
        state.acknowledge(self.store, self.in_flight.name, state.ALL_FUTURE)

    def leave(self) -> None:
        """Settle the finished deliveries, release the others, and end the leases."""
        with self.in_flight.lock:
            self._abandon_call()
            leave(self.store, self.in_flight)

    def _abandon_call(self) -> None:
        if self.fetcher is not None:
            self.fetcher.abandon()

    # Publishing

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not self._holds_tasks(queue):
            super()._put(queue, message, **kwargs)
            return
        headers = message.get("headers") or {}
        # A retry or the next link of a chain comes from the pool itself, so it must never wait for room.
        own = bool(headers.get("retries")) or headers.get("parent_id") is not None
        outgoing = Outgoing(
            queue,
            str(headers.get("id", "")),
            dumps(message),
            self._get_message_priority(message, reverse=False),
            moment_ms(headers.get("eta")),
        )
        [outcome] = publish.publish(self.store, [outgoing], policy="exempt" if own else self._policy(queue))
        if isinstance(outcome, publish.Full):
            raise QueueFull(queue, bound=outcome.bound, depth=outcome.depth, paused=outcome.paused)

    def _policy(self, queue: str) -> publish.Policy:
        return "shed" if self.queues.get(queue, {}).get("overflow") == "shed" else "reject"

    # Connections

    @cached_property
    def store(self) -> Store:
        """The one client for synchronous commands; kombu would create a new one for each command."""
        client = stock.redis.Redis(connection_pool=self.pool)
        seconds = COPY_SHARE * (self.socket_timeout or PATIENCE_SECONDS)
        return Store(client, self.global_keyprefix, self.send_copies, seconds)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the one client."""
        yield client or self._shared_client

    @cached_property
    def _shared_client(self) -> Any:
        return self._create_client()

    def queue_keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(queue, self.global_keyprefix)

    def _purge(self, queue: str) -> int:
        if not self._holds_tasks(queue):
            return int(super()._purge(queue))
        return purge(self.store, queue)


def for_kombu(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as kombu passes it on: its message, with what this delivery adds."""
    message = delivery.message
    info = message.properties.get("delivery_info")
    properties = {
        **message.properties,
        "delivery_tag": delivery.tag,
        "delivery_info": {
            **(info if isinstance(info, dict) else {"exchange": "", "routing_key": delivery.queue}),
            "redelivered": delivery.deliveries > 0,
        },
    }
    return {**message.envelope, "properties": properties, "delivery": delivery}


def is_remote_control(queue: str) -> bool:
    """True for kombu's mailbox and reply queues, whose messages are not tasks."""
    return queue.endswith(".pidbox") or queue.startswith("celeryev.")


class SentinelChannel(Channel, ConnectingToMaster):
    """A channel to the master that Sentinel names."""

    from_transport_options = (
        *Channel.from_transport_options,
        "master_name",
        "min_other_sentinels",
        "sentinel_kwargs",
        "sentinel_fanout_compat",
    )


class Transport(TransportByUrl):
    """Millpond's transport, for every URL."""

    Channel = Channel

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(client, *args, **kwargs)
        url = url_of(client)
        if url is not None and url.is_sentinel:
            self.Channel = SentinelChannel
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Set the poller's event loop, and register each socket once instead of in every iteration."""
        # The loop outlives its connections, and would go on calling for each that was lost.
        known = {each for each in loop.on_tick if not (isinstance(each, Tick) and each.is_over)}
        super().register_with_event_loop(connection, loop)
        self.cycle.hub = loop
        loop.on_tick = {*known, Tick(self, loop)}

    def _reject_inbound_message(self, raw_message: dict[str, Any]) -> None:
        """Release messages that were fetched for a consumer that has been cancelled meanwhile."""
        for channel in self.channels:
            if channel is not None and channel.fetcher is not None:
                channel.settle(raw_message["delivery"], RELEASE)


class SentinelTransport(Transport):
    """The same, by the name that applications had to give for sentinel://."""

    default_port = 26379
    Channel = SentinelChannel
