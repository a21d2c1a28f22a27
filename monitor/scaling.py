"""Say how much there is to do for a pool, so that whoever runs its containers can tell how many it wants.

Tasks that wait, on every priority, and tasks that are held: a pool that is busy has work although nothing
waits. The age of the oldest tells that there are too few, whatever the tasks are.
"""

from dataclasses import dataclass

from millpond.broker.connection import Store
from millpond.broker.inspect import depth as inspect_depth
from millpond.tasks.errors import SettingsError
from millpond.tasks.name_suggestions import unknown
from millpond.tasks.pools import Table


@dataclass(frozen=True)
class Demand:
    """Hold what waits for a pool or is held by it, and how long the oldest has waited (0: nothing waits)."""

    tasks: int
    oldest_seconds: float


def demand(store: Store, table: Table, pool: str) -> Demand:
    """Return the demand on a pool, over all of its queues. Raises `SettingsError` for an unknown pool."""
    if pool not in table.pools:
        raise SettingsError(unknown("pool", pool, table.pools))
    depths = inspect_depth.depths(store, table.pools[pool].queues)
    return Demand(
        tasks=sum(depth.ready + depth.in_flight for depth in depths),
        oldest_seconds=max(depth.oldest_seconds or 0.0 for depth in depths),
    )
