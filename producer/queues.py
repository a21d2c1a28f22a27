"""Know the queues that a producer sends to: that they exist, and what they do when they are full."""

import time
from collections.abc import Iterable
from typing import get_args

from broker import limits, status
from broker.connection import Store
from tasks.errors import UnknownQueue
from tasks.pools import Overflow, Table

#: How long what the broker said of a queue is believed.
KEEP_SECONDS = 5.0


class Queues:
    """Answer for the queues of one broker; what is known is replaced as a whole, so threads may share it."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table
        self._known: dict[str, tuple[float, Overflow]] = {}

    def overflow(self, queue: str) -> Overflow:
        """Return the policy of a queue as it is in Redis. Raises `UnknownQueue`."""
        known = self._known.get(queue)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if known is None:
            self._declare(queue)
        found = limits.read(self._store, queue).overflow
        overflow: Overflow = found if found in get_args(Overflow) else "block"  # type: ignore[assignment]
        self._known[queue] = (time.monotonic() + KEEP_SECONDS, overflow)
        return overflow

    def _declare(self, queue: str) -> None:
        """Fill in the limits of the own table where no worker has; a queue that nobody knows is refused."""
        described = self._table.queues.get(queue)
        if described is not None:
            limits.declare(self._store, queue, described.broker_limits(), authoritative=False)
        elif queue not in (known := status.queues(self._store)):
            raise unknown(queue, {*known, *self._table.queues})


def unknown(queue: str, known: Iterable[str]) -> UnknownQueue:
    """Return the error that says which queues there are, and what to do."""
    return UnknownQueue(
        f"no pool takes from a queue named {queue!r}; there are: {', '.join(sorted(known))}. "
        f"Add a [queues.{queue}] table to the millpond.toml of the workers, or start them first"
    )
