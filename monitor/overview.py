"""Read what `millpond status` shows: the pools of the table beside what their queues hold."""

from collections.abc import Iterator
from dataclasses import dataclass

from broker import limits, status
from broker.connection import Store
from broker.limits import Limits
from broker.status import Depth
from tasks.pools import Pool, Table


@dataclass(frozen=True)
class QueueView:
    """Show one queue: what it holds, its limits in force, and the pools of the table that take from it."""

    depth: Depth
    limits: Limits
    pools: tuple[str, ...]

    @property
    def is_served(self) -> bool:
        """Say whether a consumer has a lease on it now."""
        return self.depth.consumers > 0


@dataclass(frozen=True)
class PoolView:
    """Show one pool: the slots that the table gives it, and what its queues hold."""

    name: str
    pool: Pool
    queues: tuple[QueueView, ...]


def queue_views(store: Store, table: Table) -> Iterator[QueueView]:
    """Yield every queue that is in the table or was ever declared, by name."""
    for name in sorted({*table.queues, *status.queues(store)}):
        yield QueueView(status.depth(store, name), limits.read(store, name), tuple(table.pools_of(name)))


def pool_views(table: Table, queues: dict[str, QueueView]) -> Iterator[PoolView]:
    """Yield every pool of the table with its queues."""
    for name, pool in table.pools.items():
        yield PoolView(name, pool, tuple(queues[queue] for queue in pool.queues))
