"""One of the two transports as a test of channels uses it, and steps that its scenarios share."""

import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kombu import Connection, Exchange, Producer, Queue

ACCEPTED = ["json", "pickle", "yaml", "text/plain", "application/octet-stream"]
TEN_STEPS = {"priority_steps": list(range(10)), "sep": ":"}


@dataclass
class Broker:
    """One of the two transports, on a database of its own."""

    url: str
    open: Callable[..., Connection]
    client: Any

    @contextmanager
    def queue(self, name: str = "q", **options: Any) -> Any:
        """Open a connection and declare a queue; yield its producer, the queue, and the connection."""
        with self.open(**options) as connection:
            channel = connection.channel()
            queue = Queue(name, Exchange(name), name)(channel)
            queue.declare()
            yield Producer(channel, exchange=queue.exchange, routing_key=name), queue, connection


def send(producer: Producer, *numbers: int, **options: Any) -> None:
    """Publish numbers."""
    for number in numbers:
        producer.publish(number, **options)


def take(queue: Queue, count: int = 1, **options: Any) -> list[Any]:
    """Get messages one by one."""
    found = (queue.get(accept=ACCEPTED, **options) for _ in range(count))
    return [message for message in found if message is not None]


def drained(connection: Connection, got: list[Any], count: int, patience: float = 10.0) -> None:
    """Drain events until so many messages have arrived, or none arrives for so many seconds."""
    with suppress(socket.timeout):
        while len(got) < count:
            connection.drain_events(timeout=patience)


def words(messages: list[Any]) -> str:
    """Return the payloads of messages as a line."""
    return " ".join(str(message.payload) for message in messages)
