"""The transport for Celery: kombu's Redis transport with other ways to publish to and consume a queue.

Health checks, fanout and the queues of remote control are inherited. A channel has five layers, each a
subclass of the one before: it connects (connection.py), has commands on whole queues (queue_commands.py),
publishes by `publish.lua` (publishing.py), settles (settling.py), and consumes by a fetcher (consuming.py).
The keys of ready messages are the same, so stock clients, Flower and KEDA find them. CHANNELS.md has every
difference to kombu's own transport. An application chooses this one by the scheme of its URL (`millpond://`),
or by `broker_transport = "millpond.broker.transport:Transport"`.
"""

from threading import get_ident
from typing import Any

from kombu.transport import redis as stock

from millpond.broker.celery.connection import MasterChannel, TransportByUrl, url_of
from millpond.broker.celery.consuming import ConsumingChannel
from millpond.broker.celery.consuming import to_kombu_message as to_kombu_message
from millpond.broker.celery.poller import Poller, TickCallback


class Channel(ConsumingChannel):
    """kombu's channel to one server, with Millpond's publishing and consuming of task queues."""

    from_transport_options = (
        *stock.Channel.from_transport_options,
        "full_queue_timeout",
        "lease_seconds",
        "lease_terms_ms",
        "queues",
        "send_copies",
    )


class SentinelChannel(Channel, MasterChannel):
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
        """Register the connections with an event loop, which the poller uses from now on."""
        # The loop outlives connections that are lost, so their callbacks are removed.
        callbacks = {each for each in loop.on_tick if not (isinstance(each, TickCallback) and each.is_over)}
        super().register_with_event_loop(connection, loop)
        self.cycle.hub, self.cycle.thread = loop, get_ident()
        loop.on_tick = {*callbacks, TickCallback(self, loop)}

    def _reject_inbound_message(self, raw_message: dict[str, Any]) -> None:
        """Release a message whose consumer was cancelled after it was fetched."""
        delivery = raw_message.get("delivery")
        if delivery is None:
            super()._reject_inbound_message(raw_message)
            return
        for channel in self.channels:
            if channel is not None and channel.in_flight.find_delivery(delivery.tag) is delivery:
                channel.release_undelivered(delivery)


class SentinelTransport(Transport):
    """The transport for sentinel:// URLs. `Transport` handles these too; older settings name this class."""

    default_port = 26379
    Channel = SentinelChannel
