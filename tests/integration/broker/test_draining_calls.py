"""Settle while a process drains, beside a call of the fetcher that is in progress."""

from typing import Any

from kombu import Connection

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.outcomes import RELEASE, SUCCEEDED
from millpond.broker.outgoing import compose

QUEUE = "draining"


def send(store: Store) -> None:
    """Publish one message."""
    publish.publish(store, [compose("test.kind", {}, queue=QUEUE, sent_at_ms=0)])


def test_a_fetch_in_progress_brings_its_messages_although_a_task_ends(url: str, plain_store: Store) -> None:
    """After SIGTERM a task ends before the reply to a fetch is read: the fetched message is released."""
    received: list[Any] = []
    in_flight = InFlightMessages()
    in_flight.receive = received.append
    with Connection(url.replace("redis://", "millpond://", 1)) as connection:
        channel = connection.default_channel
        channel.use_in_flight(in_flight)
        in_flight.settle_by(lambda _: None, channel.settle_now)
        channel.basic_consume(QUEUE, False, lambda _: None, "tag")
        in_flight.slots = 2
        fetcher = channel.fetcher
        send(plain_store)
        while not received:  # a new server does not know the script at first
            fetcher.on_tick()
            (fetcher.on_wait if fetcher._request is None else fetcher.on_reply)()
        send(plain_store)
        in_flight.leases[QUEUE].fetchable = True
        fetcher.on_tick()
        assert (len(received), fetcher._request.credit) == (1, 1)
        in_flight.draining = True  # as the signal's handler sets it
        in_flight.finish(received[0], SUCCEEDED)
        channel.finish_call()
        assert len(received) == 2
        in_flight.finish(received[1], RELEASE)
        depth = inspect_depth.read_depth(plain_store, QUEUE)
        assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (1, 0, 1)
        channel.leave_queues()
        in_flight.lease_renewer.stop()
