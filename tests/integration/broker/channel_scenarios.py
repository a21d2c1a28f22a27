"""Uses of kombu's channels in applications, each as a function of a transport that returns a short text."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from channel_broker import TEN_STEPS, Broker, drained, send, take, words
from kombu import Consumer, Exchange, Producer, Queue


def simple_queue(broker: Broker) -> str:
    with broker.open() as connection, connection.SimpleQueue("q") as simple:
        for n in range(5):
            simple.put(n)
        got = []
        for _ in range(5):
            got.append(simple.get(timeout=20))
            got[-1].ack()
        return words(got)


def given_back(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1, 2, 3, 4)
        held, left = take(queue, 3), queue.queue_declare(passive=True).message_count
    with broker.queue() as (_, queue, _):
        return f"{words(held)}, {left} left; closed: {words(take(queue, 6))}"


def redelivered_after_close(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0)
        take(queue)
    with broker.queue() as (_, queue, _):
        return str(bool(take(queue)[0].delivery_info.get("redelivered")))


def requeue(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1, 2)
        take(queue)[0].requeue()
        got = take(queue, 3)
        return f"{words(got)}, redelivered {[bool(m.delivery_info.get('redelivered')) for m in got]}"


def requeued_often(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0)
        for _ in range(6):
            for message in take(queue):
                message.requeue()
        return "there" if take(queue) else "a dead letter"


def reject(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0)
        take(queue)[0].reject()
        return f"{broker.client.xlen('millpond:{q}:dead')} dead letters"


def recover(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1)
        take(queue, 2)
        queue.channel.basic_recover(requeue=True)
        return str(queue.queue_declare(passive=True).message_count)


def no_ack(broker: Broker) -> str:
    with broker.queue() as (producer, queue, connection):
        send(producer, 0, 1, 2)
        got = take(queue, no_ack=True)
        with Consumer(queue.channel, [queue], callbacks=[lambda _, m: got.append(m)], no_ack=True):
            drained(connection, got, 2)
    return f"{words(got)}, left: {broker.client.llen('q')}"


def ack_twice(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1)
        tag = take(queue)[0].delivery_tag
        queue.channel.basic_ack(tag)
        queue.channel.basic_ack(tag)
        return words(take(queue, 2))


def consume(broker: Broker, prefetch: int | None) -> str:
    got: list[Any] = []
    with broker.queue() as (producer, queue, connection):
        send(producer, *range(6))
        with Consumer(
            queue.channel, [queue], callbacks=[lambda _, m: got.append(m)], prefetch_count=prefetch
        ):
            drained(connection, got, 5, 1.0 if prefetch else 10.0)
            held = len(got)
            got[0].ack()
            drained(connection, got, min(6, held + 1))
        seen = len(got)
    return f"{held} then {seen}; closed: {broker.client.llen('q')} ready"


def event_by_event(broker: Broker) -> str:
    got: list[Any] = []
    with broker.queue() as (producer, queue, connection):
        send(producer, 0, 1, 2)
        with Consumer(queue.channel, [queue], callbacks=[lambda _, m: got.append(m)], prefetch_count=10):
            connection.drain_events(timeout=20)
            return f"{len(got)} delivered"


def nothing_comes(broker: Broker) -> str:
    with (
        broker.queue() as (_, queue, connection),
        Consumer(queue.channel, [queue], callbacks=[lambda *_: None]),
    ):
        try:
            connection.drain_events(timeout=0.2)
        except TimeoutError:
            return "socket.timeout"
    return "nothing"


def callback_raises(broker: Broker) -> str:
    def fail(*_: Any) -> None:
        raise RuntimeError("the callback's")

    with broker.queue() as (producer, queue, connection):
        send(producer, 0)
        with Consumer(queue.channel, [queue], callbacks=[fail]):
            try:
                connection.drain_events(timeout=20)
                said = "nothing"
            except RuntimeError as error:
                said = str(error)
    return f"{said}; closed: {broker.client.llen('q')} ready"


def two_channels(broker: Broker, prefetch_count: int = 6) -> str:
    got: list[Any] = []
    with broker.queue() as (producer, queue, connection):
        other = queue.bind(connection.channel())
        each = {"callbacks": [lambda _, m: got.append(m)], "prefetch_count": prefetch_count}
        with Consumer(queue.channel, [queue], **each), Consumer(other.channel, [other], **each):
            send(producer, *range(6))
            drained(connection, got, 6)
            for message in got:
                message.ack()
    return f"{sorted(m.payload for m in got)}, left: {broker.client.llen('q')}"


def bodies(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        producer.publish({"a": 1}, serializer="pickle")
        producer.publish({"é": 1}, serializer="yaml")
        producer.publish([1], compression="zlib")
        producer.publish(b"\xff", content_type="application/octet-stream", content_encoding="binary")
        producer.publish("text", content_type="text/plain", content_encoding="utf-8")
        return " ".join(f"{m.content_type}={m.payload!r}" for m in take(queue, 5))


def headers(broker: Broker) -> str:
    sent = {"id": UUID(int=1), "at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\xff", "none": None}
    with broker.queue() as (producer, queue, _):
        producer.publish(0, headers=sent)
        return str(take(queue)[0].headers == sent)


def without_headers(broker: Broker) -> str:
    text = '{"body": "1", "content-type": "application/json", "content-encoding": "utf-8", "properties": %s}'
    info = '{"delivery_tag": "t", "delivery_info": {"exchange": "q", "routing_key": "q"}}'
    with broker.queue() as (_, queue, _):
        broker.client.lpush("q", text % info)
        return words(take(queue))


def not_json(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        broker.client.lpush("q", "{no")
        send(producer, 0)
        try:
            return f"{words(take(queue))}, {broker.client.xlen('millpond:{q}:dead')} dead letters"
        except ValueError as error:
            return f"{type(error).__name__}, lost"


def later(broker: Broker) -> str:
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with broker.queue() as (producer, queue, _):
        producer.publish(0, headers={"eta": eta})
        count = queue.queue_declare(passive=True).message_count
        queue.delete(if_empty=True)
        still = queue.queue_declare(passive=True).message_count
        early = "at once" if take(queue) else "when it is due"
        queue.delete()
        return f"counts {count}, if_empty keeps {still}, delivered {early}"


def delete(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1)
        take(queue)[0].ack()
        queue.delete()
    left = [key.decode() for key in broker.client.keys("*") if b"q" in key and b"queues" not in key]
    return f"keys left: {left}, known: {broker.client.sismember('millpond:queues', 'q')}"


def delete_unbound(broker: Broker) -> str:
    with broker.open() as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        Producer(channel).publish(0, routing_key="q")
        channel.queue_delete("q")
        return f"{broker.client.llen('q')} left"


def delete_if_unused(broker: Broker) -> str:
    with (
        broker.queue() as (producer, queue, _),
        broker.queue() as (_, same, _),
        Consumer(same.channel, [same], callbacks=[lambda *_: None]),
    ):
        with suppress(socket.timeout):
            same.channel.connection.client.drain_events(timeout=0.5)
        send(producer, 0)
        queue.delete(if_unused=True)
        return f"{broker.client.llen('q')} left"


def expires(broker: Broker) -> str:
    with broker.open() as connection:
        channel = connection.channel()
        queue = Queue("q", Exchange("q"), "q", expires=0.3)(channel)
        queue.declare()
        Producer(channel, exchange=queue.exchange, routing_key="q").publish(0)
        before, until = broker.client.llen("q"), time.monotonic() + 5
        while broker.client.llen("q") and time.monotonic() < until:
            time.sleep(0.02)
        return f"{before} then {broker.client.llen('q')}"


def priorities(broker: Broker, options: dict[str, Any]) -> str:
    with broker.queue(**options) as (producer, queue, _):
        for priority in (9, 5, 4, 0, 3):
            producer.publish(priority, priority=priority)
        return words(take(queue, 5))


def order_of_queues(broker: Broker, strategy: str) -> str:
    got: list[Any] = []
    with broker.open(queue_order_strategy=strategy) as connection:
        channel = connection.channel()
        queues = [Queue(name, Exchange(name), name)(channel) for name in ("b", "a")]
        for queue in queues:
            queue.declare()
            for _ in range(2):
                Producer(channel, exchange=queue.exchange, routing_key=queue.name).publish(queue.name)
        with Consumer(channel, queues, callbacks=[lambda body, _: got.append(body)], no_ack=True):
            drained(connection, got, 4)
    return " ".join(got)


def fanout(broker: Broker) -> str:
    got: list[Any] = []
    with broker.open() as connection:
        channel, exchange = connection.channel(), Exchange("all", type="fanout")
        queues = [Queue(name, exchange)(channel) for name in ("f1", "f2")]
        with Consumer(channel, queues[:1], callbacks=[lambda body, _: got.append(body)], no_ack=True):
            with suppress(socket.timeout):
                connection.drain_events(timeout=0.3)
            Producer(channel, exchange=exchange).publish("news")
            drained(connection, got, 1)
    return str(got)


def purge(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        send(producer, 0, 1, 2)
        return f"{queue.purge()} then {queue.purge()}"


def batch(broker: Broker) -> str:
    with broker.queue() as (producer, _, _):
        with producer.batch():
            send(producer, *range(50))
            inside = broker.client.llen("q")
        return f"{inside} within, {broker.client.llen('q')} after"


def large(broker: Broker) -> str:
    with broker.queue() as (producer, queue, _):
        try:
            producer.publish("x" * 12_000_000)
        except Exception as error:
            return f"refused: {error}"[:40]
        return "delivered" if take(queue) else "lost"


def unknown_queue(broker: Broker) -> str:
    with broker.open() as connection:
        try:
            connection.channel().queue_declare("nowhere", passive=True)
        except Exception as error:
            return type(error).__name__
    return "known"


SCENARIOS: dict[str, Callable[[Broker], str]] = {
    "SimpleQueue": simple_queue,
    "a channel closes with messages unacknowledged": given_back,
    "`redelivered` after such a close": redelivered_after_close,
    "`requeue`": requeue,
    "`requeue` again and again": requeued_often,
    "`reject`": reject,
    "`basic_recover`": recover,
    "`no_ack`": no_ack,
    "a second `ack`": ack_twice,
    "`prefetch_count` of 3": lambda broker: consume(broker, 3),
    "`prefetch_count` of 0": lambda broker: consume(broker, 0),
    "`prefetch_count` unset": lambda broker: consume(broker, None),
    "`drain_events` once": event_by_event,
    "`drain_events` in vain": nothing_comes,
    "a callback that raises": callback_raises,
    "two consumers of a queue on one connection": two_channels,
    "bodies of other serializers": bodies,
    "headers that are no JSON": headers,
    "a message without headers": without_headers,
    "a message that is no JSON": not_json,
    "a message with an `eta`": later,
    "`queue_delete`": delete,
    "`queue_delete` of a queue without a binding": delete_unbound,
    "`queue_delete` with `if_unused`": delete_if_unused,
    "`x-expires`": expires,
    "four priority steps": lambda broker: priorities(broker, {}),
    "ten priority steps": lambda broker: priorities(broker, TEN_STEPS),
    "`queue_order_strategy` priority": lambda broker: order_of_queues(broker, "priority"),
    "`queue_order_strategy` sorted": lambda broker: order_of_queues(broker, "sorted"),
    "a fanout exchange": fanout,
    "`queue_purge`": purge,
    "`Producer.batch`": batch,
    "a message of 16 MB": large,
    "a passive declaration of an unknown queue": unknown_queue,
}
