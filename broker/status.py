"""Read what a queue holds and what happened on it."""

import json
from dataclasses import dataclass

from broker.connection import Store, clear_errors
from broker.keys import QueueKeys, queues_key


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
    keys = QueueKeys(queue, store.prefix)
    with clear_errors(f"looking at queue {queue!r}"), store.client.pipeline(transaction=False) as pipe:
        for ready in keys.ready:
            pipe.llen(ready)
        pipe.zcard(keys.delayed).xlen(keys.dead).zrange(keys.consumers, 0, -1).hgetall(keys.counters).time()
        *ready_lengths, delayed, dead, consumers, counters, (seconds, micros) = pipe.execute()
        for consumer in consumers:
            pipe.hlen(keys.held(consumer.decode()))
        for ready in keys.ready:
            pipe.lindex(ready, -1)
        answers = pipe.execute()
    held, heads = answers[: len(consumers)], answers[len(consumers) :]
    return Depth(
        queue=queue,
        ready=sum(ready_lengths),
        delayed=delayed,
        held=sum(held),
        dead=dead,
        consumers=len(consumers),
        oldest_seconds=_oldest(heads, seconds + micros / 1e6),
        counters={name.decode(): int(float(value)) for name, value in counters.items()},
    )


def _oldest(heads: list[bytes | None], now_seconds: float) -> float | None:
    sent = [at for at in map(sent_at_ms, filter(None, heads)) if at is not None]
    return max(0.0, now_seconds - min(sent) / 1000) if sent else None


def sent_at_ms(message: bytes) -> int | None:
    """Return when a message was sent, by the server's clock; None where it does not say."""
    try:
        at = json.loads(message)["headers"]["millpond"]["at"]
    except (ValueError, TypeError, KeyError):
        return None
    return at if isinstance(at, int) else None
