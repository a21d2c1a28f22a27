"""The depth of queues: their messages by state, age and counters, and whether a queue is fetchable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.limits import Limits, read_limits_of_all
from millpond.broker.message import BadMessage, Message


@dataclass(frozen=True)
class Depth:
    """The number of messages of a queue by state.

    `oldest_seconds` is the age of the next message to be fetched (None: none is ready, or a foreign client
    sent it without a time). `counters` are totals since the queue was first used.
    """

    queue: str
    ready: int
    delayed: int
    in_flight: int
    dead: int
    consumers: int
    oldest_seconds: float | None
    counters: dict[str, int]


def read_declared_queues(store: Store) -> list[str]:
    """Return the names of all queues that were declared."""
    with translate_errors("listing the queues"):
        return sorted(name.decode() for name in store.client.smembers(queues_key(store.prefix)))


def read_depth(store: Store, queue: str) -> Depth:
    """Return the depth of one queue, in two round trips."""
    return read_depths(store, [queue])[0]


def read_depths(store: Store, queues: Sequence[str]) -> list[Depth]:
    """Return the depth of each queue, in two round trips for all of them."""
    all_keys = [QueueKeys(queue, store.prefix) for queue in queues]
    subject = f"queue {queues[0]!r}" if len(queues) == 1 else "the queues"
    with store.pipeline(f"reading the depth of {subject}") as pipe:
        pipe.time()
        for keys in all_keys:
            for ready in keys.ready:
                pipe.llen(ready)
            pipe.zcard(keys.delayed).xlen(keys.dead).hgetall(keys.counters)
            pipe.zrange(keys.consumers, 0, -1, withscores=True)
        (seconds, micros), *first = pipe.execute()  # eight replies for each queue, the last one its leases
        leases_of_all = first[7::8]
        for keys, leases in zip(all_keys, leases_of_all, strict=True):
            for ready in keys.ready:
                pipe.lindex(ready, -1)
            for consumer, _until in leases:
                pipe.hlen(keys.in_flight(consumer.decode()))
        second = iter(pipe.execute())  # four replies for each queue, and one for each lease
    now = seconds + micros / 1e6
    return [
        _parse_depth(queue, first[8 * n : 8 * n + 8], [next(second) for _ in range(4 + len(leases))], now)
        for n, (queue, leases) in enumerate(zip(queues, leases_of_all, strict=True))
    ]


def _parse_depth(queue: str, first: list[Any], second: list[Any], now_seconds: float) -> Depth:
    """Return the depth of a queue from the replies to the first and to the second round trip for it."""
    *ready, delayed, dead, counters, leases = first
    return Depth(
        queue=queue,
        ready=sum(ready),
        delayed=delayed,
        in_flight=sum(second[4:]),
        dead=dead,
        consumers=sum(until >= now_seconds * 1000 for _consumer, until in leases),
        oldest_seconds=_oldest_age(second[:4], now_seconds),
        counters={name.decode(): int(float(value)) for name, value in counters.items()},
    )


def _oldest_age(heads: list[bytes | None], now_seconds: float) -> float | None:
    """Return the age in seconds of the oldest of the messages `heads`, or None if no age is known."""
    sent = [at for at in map(sent_at_ms, filter(None, heads)) if at is not None]
    return max(0.0, now_seconds - min(sent) / 1000) if sent else None


def sent_at_ms(message: bytes) -> int | None:
    """Return when a message was sent, or was due if that is later (ms by the server's clock).

    Return None if the message cannot be decoded, or has no time of sending.
    """
    try:
        decoded = Message.decode(message)
        due_ms = decoded.due_ms
    except BadMessage:
        return None
    return None if decoded.sent_ms is None else max(decoded.sent_ms, due_ms or 0)


def read_fetchable_limits(store: Store, queues: Sequence[str]) -> list[Limits]:
    """Return the limits of each queue from which a consumer could fetch a message now.

    A queue without a ready message, a paused queue, and a queue whose in-flight limit is reached are left
    out. A rate limit is ignored, so the caller must consider that its next token may be due later.
    """
    with store.pipeline("looking for ready messages") as pipe:
        for queue in queues:
            pipe.exists(*QueueKeys(queue, store.prefix).ready)
        ready = [queue for queue, is_ready in zip(queues, pipe.execute(), strict=True) if is_ready]
    return [
        limits
        for queue, limits in zip(ready, read_limits_of_all(store, ready), strict=True)
        if not limits.paused and not (limits.in_flight and _count_in_flight(store, queue) >= limits.in_flight)
    ]


def _count_in_flight(store: Store, queue: str) -> int:
    """Return the number of messages in flight of a queue that has an in-flight limit.

    settle_and_fetch.lua stores this number, with the number of messages that were fetched so far. The stored
    number is right as long as no more messages were fetched. Otherwise the messages are counted.
    """
    keys = QueueKeys(queue, store.prefix)
    with store.pipeline(f"counting the messages in flight of queue {queue!r}") as pipe:
        pipe.hget(keys.drain_rate, "flying").hget(keys.counters, "fetched")
        stored, fetched = pipe.execute()
    count, fetched_then, *_ = (stored or b"0 -").split()
    return int(count) if fetched_then == (fetched or b"0") else read_depth(store, queue).in_flight
