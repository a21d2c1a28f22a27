"""Drain a pool on all hosts: its processes finish their running tasks and start nothing until it resumes.

The mark is kept in Redis, so a process that starts later is drained too, for example one that a supervisor
or Kubernetes restarts.
"""

from collections.abc import Callable, Iterable
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import (
    ACK_TIMEOUT_SECONDS,
    count_in_flight,
    wait_for_acknowledgements,
)
from millpond.broker.keys import drained_key, epoch_key
from millpond.broker.server import server_time_ms


def drain_pool(store: Store, pool: str) -> tuple[str, ...]:
    """Drain a pool, wait for its acknowledgements and return the processes that have not acknowledged.

    A pool that is drained already keeps the time at which it was drained.
    """
    with translate_errors(f"draining pool {pool!r}"):
        now_ms = server_time_ms(store)
        epoch = _announce_change(store, lambda pipe: pipe.hsetnx(drained_key(store.prefix), pool, now_ms))
        return wait_for_acknowledgements(store, epoch, ACK_TIMEOUT_SECONDS)


def resume_pool(store: Store, pool: str) -> bool:
    """Resume a drained pool. Return False if it was not drained."""
    was_drained = pool in read_drained_pools(store)
    with translate_errors(f"resuming pool {pool!r}"):
        _announce_change(store, lambda pipe: pipe.hdel(drained_key(store.prefix), pool))
    return was_drained


def read_drained_pools(store: Store) -> dict[str, int]:
    """Return the drained pools, each with the time it was drained (ms by the server's clock)."""
    with translate_errors("reading which pools are drained"):
        times = store.client.hgetall(drained_key(store.prefix))
    return {name.decode(): int(at) for name, at in times.items()}


def read_process_loads(store: Store, pool: str, queues: Iterable[str]) -> dict[str, int]:
    """Return the messages in flight of each process of a pool with a lease on its queues, by its name.

    In a drained pool all of these are running.
    """
    with translate_errors(f"reading the processes of pool {pool!r}"):
        counts = count_in_flight(store, queues)
    return {name: n for name, n in sorted(counts.items()) if pool in name.partition("@")[0].split("+")}


def _announce_change(store: Store, change: Callable[[Any], object]) -> int:
    """Make a change of the drained pools and announce it to every process, and return its epoch.

    `change` adds its command to the pipeline, whose commands are one transaction.
    """
    key = epoch_key(store.prefix)
    with store.client.pipeline() as pipe:
        change(pipe)
        pipe.incr(key).publish(key, "drain")
        _changed, epoch, _receivers = pipe.execute()
    return int(epoch)
