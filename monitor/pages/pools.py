"""The page of pools: slots, processes by host, wait and service times of the last minute, the diagnosis."""

from millpond.broker.connection import Store
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import snapshot
from millpond.monitor.diagnosis import Diagnosis, diagnose_all, pictures
from millpond.monitor.pages import sparkline
from millpond.monitor.pages.handler import PageHandler
from millpond.monitor.snapshot import Snapshot
from millpond.tasks.pools import PoolsTable

#: Pool -> figure -> its sparkline.
Sparklines = dict[str, dict[str, str]]


class PoolsPage(PageHandler):
    """The page of all pools."""

    async def get(self) -> None:
        """Render a snapshot of the pools."""
        current, sparklines, diagnoses = await self.call_broker(
            _read_pools, self.store, self.pools_table, self.history
        )
        self.render_page(
            "pools.html",
            tab="pools",
            snapshot=current,
            sparklines=sparklines,
            diagnoses=diagnoses,
            pictures=pictures,
        )


def _read_pools(
    store: Store, pools_table: PoolsTable, history: HistoryCache
) -> tuple[Snapshot, Sparklines, dict[str, Diagnosis]]:
    """Return the snapshot, and the sparklines and the diagnosis of each pool. Blocks on the broker."""
    current = snapshot.read_snapshot(store, pools_table)
    names = [view.name for view in current.pools]
    histories = history.samples([f"pool:{name}" for name in names])
    sparklines = {
        name: {
            "rate": sparkline.rate_bars(samples, "ended", now_ms=current.now_ms),
            "busy": sparkline.level_bars(samples, "busy", now_ms=current.now_ms),
        }
        for name, samples in zip(names, histories, strict=True)
    }
    return current, sparklines, {diagnosis.pool: diagnosis for diagnosis in diagnose_all(store, current)}
