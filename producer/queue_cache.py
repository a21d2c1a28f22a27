"""A producer's cache of its queues: whether they exist, their overflow policies, their longest messages."""

import time
from collections.abc import Iterable
from typing import get_args

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.message import Outgoing
from millpond.tasks.errors import BadContract, UnknownQueue
from millpond.tasks.name_suggestions import list_names
from millpond.tasks.pools import Overflow, Table

#: How long the limits of a queue are cached.
CACHE_SECONDS = 5.0


class QueueCache:
    """The limits of one broker's queues. An entry is replaced as a whole, so threads may share the cache."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table
        #: Queue -> until when the entry is fresh, the overflow policy, and the length of the longest message.
        self.known: dict[str, tuple[float, Overflow, int]] = {}
        #: The maximum length that all of these queues have in common: no shorter message need be checked.
        self.shortest_maximum = 0

    def overflow_policy(self, queue: str) -> Overflow:
        """Return the overflow policy of a queue, as Redis had it in the last `CACHE_SECONDS`.

        Declares the queue in Redis if the settings have it and Redis does not. Raises `UnknownQueue`.
        """
        cached = self.known.get(queue)
        if cached is not None and time.monotonic() < cached[0]:
            return cached[1]
        if cached is None:
            self._declare_queue(queue)
        stored = limits.read_limits(self._store, queue)
        is_known = stored.overflow in get_args(Overflow)
        overflow: Overflow = stored.overflow if is_known else "block"  # type: ignore[assignment]
        self.known[queue] = (time.monotonic() + CACHE_SECONDS, overflow, stored.message_bytes)
        self.shortest_maximum = min(length for _until, _overflow, length in tuple(self.known.values()))
        return overflow

    def check_length(self, message: Outgoing) -> None:
        """Raise `BadContract` for a message that is too long for its queue. Call `overflow_policy` first."""
        longest = self.known[message.queue][2]
        if len(message.payload) > longest:
            raise BadContract(
                f"a message of {len(message.payload):,} bytes is too long: queue {message.queue!r} takes "
                f"at most {longest:,}. Put the content into a file or a store, and send its URL"
            )

    def _declare_queue(self, queue: str) -> None:
        """Declare the limits that the settings give a queue, unless a worker has declared its own.

        Raises `UnknownQueue` for a queue that neither the settings nor Redis have.
        """
        configured = self._table.queues.get(queue)
        if configured is not None:
            limits.declare_limits(self._store, queue, configured.broker_limits(), authoritative=False)
        elif queue not in (declared := depth.declared_queues(self._store)):
            raise unknown_queue_error(queue, {*declared, *self._table.queues})


def unknown_queue_error(queue: str, queues: Iterable[str]) -> UnknownQueue:
    """Return the error for a queue that is not among `queues`. It suggests a similar name."""
    return UnknownQueue(
        f"no pool takes from a queue named {queue!r}; {list_names(queue, queues)} "
        f"Add a [queues.{queue}] table to the millpond.toml of the workers, or start them first"
    )
