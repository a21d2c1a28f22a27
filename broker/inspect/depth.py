"""The depth of queues: their messages by state, age and counters, and whether a queue is fetchable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.limits import Limits, read_limits_of_all
from millpond.broker.message import Message


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


def declared_queues(store: Store) -> list[str]:
    """Return the names of all queues that were declared."""
    with translate_errors("listing the queues"):
        return sorted(name.decode() for name in store.client.smembers(queues_key(store.prefix)))


def read_depth(store: Store, queue: str) -> Depth:
    """Return the depth of one queue, in two round trips."""
    return read_depths(store, [queue])[0]


def read_depths(store: Store, queues: Sequence[str]) -> list[Depth]:
    """Return the depth of each queue, in two round trips for all of them."""
    keys = [QueueKeys(queue, store.prefix) for queue in queues]
    action = (
        f"reading the depth of queue {queues[0]!r}" if len(queues) == 1 else "reading the depth of the queues"
    )
    with translate_errors(action), store.client.pipeline(transaction=False) as pipe:
        pipe.time()
        for each in keys:
            for ready in each.ready:
                pipe.llen(ready)
            pipe.zcard(each.delayed).xlen(each.dead).hgetall(each.counters)
            pipe.zrange(each.consumers, 0, -1, withscores=True)
        (seconds, micros), *counted = pipe.execute()
        consumers = counted[7::8]
        for each, leases in zip(keys, consumers, strict=True):
            for ready in each.ready:
                pipe.lindex(ready, -1)
            for consumer, _until in leases:
                pipe.hlen(each.in_flight(consumer.decode()))
        looked = iter(pipe.execute())
    now = seconds + micros / 1e6
    return [
        _parse_depth(queue, counted[8 * n : 8 * n + 8], [next(looked) for _ in range(4 + len(leases))], now)
        for n, (queue, leases) in enumerate(zip(queues, consumers, strict=True))
    ]


def _parse_depth(queue: str, counted: list[Any], looked: list[Any], now_seconds: float) -> Depth:
    """Return the depth of a queue from the replies for it."""
    *ready, delayed, dead, counters, leases = counted
    return Depth(
        queue=queue,
        ready=sum(ready),
        delayed=delayed,
        in_flight=sum(looked[4:]),
        dead=dead,
        consumers=sum(until >= now_seconds * 1000 for _consumer, until in leases),
        oldest_seconds=_oldest_age(looked[:4], now_seconds),
        counters={name.decode(): int(float(value)) for name, value in counters.items()},
    )


def _oldest_age(heads: list[bytes | None], now_seconds: float) -> float | None:
    """Return the age in seconds of the oldest of some messages, or None if it is not known."""
    sent = [at for at in map(sent_at_ms, filter(None, heads)) if at is not None]
    return max(0.0, now_seconds - min(sent) / 1000) if sent else None


def sent_at_ms(message: bytes) -> int | None:
    """Return when a message was sent, or was due if that is later (ms by the server's clock).

    Return None if the message cannot be read, or does not say when it was sent.
    """
    try:
        decoded = Message.decode(message)
        due_ms = decoded.due_ms
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if decoded.sent_ms is None else max(decoded.sent_ms, due_ms or 0)


def with_ready(store: Store, queues: Sequence[str]) -> list[str]:
    """Return the queues that have ready messages, with one command for each queue."""
    with translate_errors("looking for ready messages"), store.client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.exists(*QueueKeys(queue, store.prefix).ready)
        return [queue for queue, ready in zip(queues, pipe.execute(), strict=True) if ready]


def limits_of_fetchable(store: Store, queues: Sequence[str]) -> list[Limits]:
    """Return the limits of the queues from which a consumer could fetch a message now.

    Not of a paused queue or one whose in-flight limit is reached. Under a rate limit the next token may be
    due later, so the caller must consider the rate.
    """
    waiting = with_ready(store, queues)
    pairs = zip(waiting, read_limits_of_all(store, waiting), strict=True) if waiting else ()
    return [
        limits
        for queue, limits in pairs
        if not limits.paused and not (limits.in_flight and _in_flight(store, queue) >= limits.in_flight)
    ]


def _in_flight(store: Store, queue: str) -> int:
    """Return the messages in flight of a queue with a limit.

    Its calls leave the number, and how many messages had been fetched: it holds while that is so.
    """
    keys = QueueKeys(queue, store.prefix)
    with (
        translate_errors(f"reading what queue {queue!r} has in flight"),
        store.client.pipeline(transaction=False) as pipe,
    ):
        pipe.hget(keys.drain_rate, "flying").hget(keys.counters, "fetched")
        flying, fetched = pipe.execute()
    count, at_fetched, *_ = (flying or b"0 -").split()
    return int(count) if at_fetched == (fetched or b"0") else read_depth(store, queue).in_flight
