"""Know the queues that a producer sends to: that they exist, what they take, what they do when full."""

import time
from collections.abc import Iterable
from typing import get_args

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.message import Outgoing
from millpond.tasks.errors import BadContract, UnknownQueue
from millpond.tasks.name_suggestions import there_are
from millpond.tasks.pools import Overflow, Table

#: How long what the broker said of a queue is believed.
KEEP_SECONDS = 5.0


class Queues:
    """Answer for the queues of one broker; what is known is replaced as a whole, so threads may share it."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table
        self._known: dict[str, tuple[float, Overflow, int]] = {}

    def overflow(self, queue: str) -> Overflow:
        """Return the policy of a queue as it is in Redis. Raises `UnknownQueue`."""
        known = self._known.get(queue)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if known is None:
            self._declare(queue)
        found = limits.read(self._store, queue)
        known_one = found.overflow in get_args(Overflow)
        overflow: Overflow = found.overflow if known_one else "block"  # type: ignore[assignment]
        self._known[queue] = (time.monotonic() + KEEP_SECONDS, overflow, found.message_bytes)
        return overflow

    def check_length(self, message: Outgoing) -> None:
        """Raise `BadContract` for a message to a known queue that its workers would bury, being too long."""
        most = self._known[message.queue][2]
        if len(message.payload) > most:
            raise BadContract(
                f"a message of {len(message.payload):,} bytes is too long: queue {message.queue!r} takes "
                f"at most {most:,}. Put the content into a file or a store, and send where it is"
            )

    def _declare(self, queue: str) -> None:
        """Fill in the limits of the own table where no worker has; a queue that nobody knows is refused."""
        described = self._table.queues.get(queue)
        if described is not None:
            limits.declare(self._store, queue, described.broker_limits(), authoritative=False)
        elif queue not in (known := depth.queues(self._store)):
            raise unknown(queue, {*known, *self._table.queues})


def unknown(queue: str, known: Iterable[str]) -> UnknownQueue:
    """Return the error that says which queues there are, and what to do."""
    return UnknownQueue(
        f"no pool takes from a queue named {queue!r}; {there_are(queue, known)} "
        f"Add a [queues.{queue}] table to the millpond.toml of the workers, or start them first"
    )
