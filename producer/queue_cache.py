"""A producer's cache of its queues: whether they exist, their overflow policies, their longest messages."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.outgoing import Outgoing
from millpond.tasks.errors import BadContract, UnknownQueue
from millpond.tasks.name_suggestions import known_names_text
from millpond.tasks.pools import Overflow, PoolsTable
from millpond.tasks.toml_names import table_header

#: How long the limits of a queue are cached.
CACHE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _CachedLimits:
    """The limits of one queue. `fresh_until` is a time of the monotonic clock."""

    fresh_until: float
    overflow: Overflow
    max_length: int


class QueueCache:
    """The limits of one broker's queues. An entry is replaced as a whole, so threads may share the cache."""

    def __init__(self, store: Store, table: PoolsTable) -> None:
        self._store = store
        self._table = table
        #: The limits of the queues that exist, by name. An entry stays, fresh or not, until it is replaced.
        self.known: dict[str, _CachedLimits] = {}
        #: The smallest maximum length of these queues: a message of at most this length fits all of them.
        self.shortest_maximum = 0

    def overflow_policy(self, queue: str) -> Overflow:
        """Return the overflow policy of a queue, which is read from Redis at most every `CACHE_SECONDS`.

        The first call for a queue declares it if the settings have it and Redis does not. A policy that this
        version does not know counts as `block`. Raises `UnknownQueue`.
        """
        cached = self.known.get(queue)
        if cached is not None and time.monotonic() < cached.fresh_until:
            return cached.overflow
        if cached is None:
            self._declare_queue(queue)
        stored = limits.read_limits(self._store, queue)
        is_known = stored.overflow in get_args(Overflow)
        overflow: Overflow = stored.overflow if is_known else "block"  # type: ignore[assignment]
        fresh_until = time.monotonic() + CACHE_SECONDS
        self.known[queue] = _CachedLimits(fresh_until, overflow, stored.message_bytes)
        self.shortest_maximum = min(cached.max_length for cached in tuple(self.known.values()))
        return overflow

    def check_length(self, message: Outgoing) -> None:
        """Raise `BadContract` for a message that is too long for its queue. Call `overflow_policy` first."""
        max_length = self.known[message.queue].max_length
        if len(message.payload) > max_length:
            raise BadContract(
                f"a message of {len(message.payload):,} bytes is too long: queue {message.queue!r} takes "
                f"at most {max_length:,}. Put the content into a file or a store, and send its URL"
            )

    def _declare_queue(self, queue: str) -> None:
        """Declare the limits that the settings give a queue, unless a worker has declared its own.

        Raises `UnknownQueue` for a queue that neither the settings nor Redis have.
        """
        configured = self._table.queues.get(queue)
        if configured is not None:
            limits.declare_limits(self._store, queue, configured.broker_limits(), authoritative=False)
        elif queue not in (declared := depth.read_declared_queues(self._store)):
            raise unknown_queue_error(queue, {*declared, *self._table.queues})


def unknown_queue_error(queue: str, queues: Iterable[str]) -> UnknownQueue:
    """Return the error for a queue that is not among `queues`. It suggests a similar name."""
    return UnknownQueue(
        f"no pool takes from a queue named {queue!r}; {known_names_text(queue, queues)} "
        f"Add a {table_header('queues', queue)} table to the millpond.toml of the workers, "
        "or start them first"
    )
