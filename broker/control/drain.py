"""Drain a pool on all hosts: its processes finish what runs, start nothing, and wait until it resumes.

The mark is kept in Redis, so a process that is started meanwhile waits as well: a supervisor or Kubernetes
that keeps processes running does not take the work up again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import (
    ACK_TIMEOUT_SECONDS,
    process_of,
    wait_for_acknowledgements,
)
from millpond.broker.keys import QueueKeys, drained_key, epoch_key
from millpond.broker.server import now_ms


@dataclass(frozen=True)
class ProcessLoad:
    """Say how many messages a worker process of a pool holds; in a drained pool these run."""

    process: str
    in_flight: int


def drain(store: Store, pool: str, *, timeout_seconds: float = ACK_TIMEOUT_SECONDS) -> tuple[str, ...]:
    """Let no process of a pool start anything more, and return when all have heard.

    Those that had not by then are returned. Draining again changes nothing.
    """
    with translate_errors(f"draining pool {pool!r}"):
        at = now_ms(store)
        epoch = _tell(store, lambda pipe: pipe.hsetnx(drained_key(store.prefix), pool, at))
        return wait_for_acknowledgements(store, epoch, timeout_seconds)


def resume(store: Store, pool: str) -> bool:
    """Let a drained pool go on; False when it was not drained."""
    was_drained = pool in drained(store)
    with translate_errors(f"resuming pool {pool!r}"):
        _tell(store, lambda pipe: pipe.hdel(drained_key(store.prefix), pool))
    return was_drained


def drained(store: Store) -> dict[str, int]:
    """Return the drained pools, and when each was drained (ms by the server's clock)."""
    with translate_errors("reading which pools are drained"):
        found = store.client.hgetall(drained_key(store.prefix))
    return {name.decode(): int(at) for name, at in found.items()}


def running(store: Store, pool: str, queues: Iterable[str]) -> list[ProcessLoad]:
    """Return the processes of a pool that have a lease on its queues, with what each holds.

    What a process held that was killed is held by nobody: it comes back when the pool resumes.
    """
    held: dict[str, int] = {}
    with translate_errors(f"looking at pool {pool!r}"):
        now = now_ms(store)
        for queue in queues:
            keys = QueueKeys(queue, store.prefix)
            for consumer in store.client.zrangebyscore(keys.consumers, now, "+inf"):
                process = process_of(consumer.decode())
                if pool in process.partition("@")[0].split("+"):
                    messages = store.client.hlen(keys.in_flight(consumer.decode()))
                    held[process] = held.get(process, 0) + messages
    return [ProcessLoad(process, count) for process, count in sorted(held.items())]


def _tell(store: Store, change: Callable[[Any], object]) -> int:
    """Carry out a change and tell every process of it, in one transaction; return its epoch."""
    key = epoch_key(store.prefix)
    with store.client.pipeline() as pipe:
        change(pipe)
        pipe.incr(key).publish(key, "drain")
        _changed, epoch, _told = pipe.execute()
    return int(epoch)
