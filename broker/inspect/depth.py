"""Read what a queue holds and what happened on it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, clear_errors
from millpond.broker.due import due_ms
from millpond.broker.keys import QueueKeys, queues_key


@dataclass(frozen=True)
class Depth:
    """Count the messages of a queue by where they are.

    `oldest_seconds` is how long the next message to leave has waited (None: nothing waits, or a foreign
    client sent it without a time). `counters` are totals since the queue was first used.
    """

    queue: str
    ready: int
    delayed: int
    held: int
    dead: int
    consumers: int
    oldest_seconds: float | None
    counters: dict[str, int]


def queues(store: Store) -> list[str]:
    """Return the names of all queues that were ever declared."""
    with clear_errors("listing the queues"):
        return sorted(name.decode() for name in store.client.smembers(queues_key(store.prefix)))


def now_ms(store: Store) -> int:
    """Return the server's time, ms since the epoch."""
    with clear_errors("asking the time"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def depth(store: Store, queue: str) -> Depth:
    """Return the depth of one queue, in two round trips."""
    return depths(store, [queue])[0]


def depths(store: Store, queues: Sequence[str]) -> list[Depth]:
    """Return the depths of queues, in two round trips for all of them."""
    keys = [QueueKeys(queue, store.prefix) for queue in queues]
    looking = f"looking at queue {queues[0]!r}" if len(queues) == 1 else "looking at the queues"
    with clear_errors(looking), store.client.pipeline(transaction=False) as pipe:
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
                pipe.hlen(each.held(consumer.decode()))
        looked = iter(pipe.execute())
    now = seconds + micros / 1e6
    return [
        _depth(queue, counted[8 * n : 8 * n + 8], [next(looked) for _ in range(4 + len(leases))], now)
        for n, (queue, leases) in enumerate(zip(queues, consumers, strict=True))
    ]


def _depth(queue: str, counted: list[Any], looked: list[Any], now_seconds: float) -> Depth:
    *ready, delayed, dead, counters, leases = counted
    return Depth(
        queue=queue,
        ready=sum(ready),
        delayed=delayed,
        held=sum(looked[4:]),
        dead=dead,
        consumers=sum(until >= now_seconds * 1000 for _consumer, until in leases),
        oldest_seconds=_oldest(looked[:4], now_seconds),
        counters={name.decode(): int(float(value)) for name, value in counters.items()},
    )


def _oldest(heads: list[bytes | None], now_seconds: float) -> float | None:
    sent = [at for at in map(sent_at_ms, filter(None, heads)) if at is not None]
    return max(0.0, now_seconds - min(sent) / 1000) if sent else None


def sent_at_ms(message: bytes) -> int | None:
    """Return since when a message waits, ms by the server's clock: since it was sent, or was due.

    None where it does not say.
    """
    try:
        headers = json.loads(message)["headers"]
        at, due = headers["millpond"]["at"], due_ms(headers)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return max(at, due or 0) if isinstance(at, int) else None
