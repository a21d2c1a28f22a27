"""Subscriptions of a worker's channel to fanout exchanges, which remote control and `Broadcast` use."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from uuid import uuid4

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.asynchronous import Hub

from millpond.broker.transport import Transport

Eventually = Callable[..., Any]


def broadcast(name: str) -> Queue:
    """Return a queue of its own fanout exchange, both with a fresh name."""
    fresh = f"{name}-{uuid4().hex}"
    return Queue(fresh, Exchange(fresh, type="fanout"), auto_delete=True)


@contextmanager
def in_event_loop(url: str) -> Iterator[tuple[Connection, Callable[[], None]]]:
    """Yield a connection in an event loop, as a worker has it, and a function that runs the loop once."""
    hub = Hub()
    with closing(hub), Connection(url, transport=Transport) as connection:
        connection.transport.register_with_event_loop(connection.connection, hub)
        loop = hub.create_loop()
        hub.call_repeatedly(0.05, lambda: None)
        yield connection, lambda: next(loop)


def consumer_of(channel: Any, queue: Queue, got: list[str]) -> Consumer:
    """Return a consumer of a queue, which appends each body to `got`."""
    return Consumer(channel, [queue], callbacks=[lambda body, _: got.append(body)], no_ack=True)


def publish(url: str, queue: Queue, text: str) -> None:
    """Publish to the exchange of a fanout queue, from a connection of its own."""
    with Connection(url, transport=Transport) as sender:
        Producer(sender, exchange=queue.exchange, serializer="json").publish(text)


def test_a_worker_that_consumes_gets_what_is_broadcast_from_then_on(url: str, eventually: Eventually) -> None:
    """A message that is broadcast before the first turn of the event loop arrives."""
    queue, got = broadcast("at-once"), list[str]()
    with in_event_loop(url) as (connection, turn), consumer_of(connection.default_channel, queue, got):
        publish(url, queue, "news")
        eventually(lambda: turn() or got)
    assert got == ["news"]


def test_a_broadcast_queue_that_is_added_later_is_subscribed(url: str, eventually: Eventually) -> None:
    """A channel that listens subscribes to a further queue, as after `celery control add_consumer`."""
    first, second, got = broadcast("first"), broadcast("second"), list[str]()
    with (
        in_event_loop(url) as (connection, turn),
        consumer_of(connection.default_channel, first, got) as consumer,
    ):
        publish(url, first, "before")
        eventually(lambda: turn() or got)
        consumer.add_queue(second)
        consumer.consume()
        for queue, text in ((second, "later"), (first, "still")):
            publish(url, queue, text)
        eventually(lambda: turn() or len(got) == 3)
    assert sorted(got) == ["before", "later", "still"]


def test_a_subscription_without_an_event_loop(url: str) -> None:
    """`drain_events` also receives from a queue that is added after the first one."""
    first, second, got = broadcast("first"), broadcast("second"), list[str]()
    with (
        Connection(url, transport=Transport) as connection,
        consumer_of(connection.default_channel, first, got) as consumer,
    ):
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        consumer.add_queue(second)
        consumer.consume()
        publish(url, second, "later")
        for _ in range(20):
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.3)
            if got:
                break
    assert got == ["later"]
