"""The demand on a pool, from which an autoscaler computes the number of its containers.

It counts ready tasks of every priority and tasks in flight: a busy pool has work although no task is ready.
The age of the oldest task shows a lack of workers, however long the tasks are.
"""

from dataclasses import dataclass

from millpond.broker.connection import Store
from millpond.broker.inspect import depth as inspect_depth
from millpond.tasks.pools import PoolsTable


@dataclass(frozen=True)
class Demand:
    """Ready and in-flight tasks of a pool, and the age of the oldest ready one (0: none is ready)."""

    tasks: int
    oldest_seconds: float


def read_demand(store: Store, pools_table: PoolsTable, pool: str) -> Demand:
    """Return the demand on a pool over all its queues. Raises `SettingsError` for an unknown pool."""
    depths = inspect_depth.read_depths(store, pools_table.pool(pool).queues)
    return Demand(
        tasks=sum(depth.ready + depth.in_flight for depth in depths),
        oldest_seconds=max(depth.oldest_seconds or 0.0 for depth in depths),
    )
