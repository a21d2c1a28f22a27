"""Show the pools: slots, processes by host, and what waited and took how long in the last minute."""

from millpond.broker.connection import Store
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import snapshot, sparkline
from millpond.monitor.diagnosis import Verdict, verdicts
from millpond.monitor.pages.handler import Handler
from millpond.monitor.snapshot import Overview
from millpond.tasks.pools import Table

#: Pool -> figure -> its last hour, drawn.
Lines = dict[str, dict[str, str]]


class Pools(Handler):
    """Show every pool on one page."""

    async def get(self) -> None:
        """Render the pools as they are now."""
        seen, lines, why = await self.ask(_seen, self.store, self.table, self.past)
        self.show("pools.html", tab="pools", seen=seen, lines=lines, why=why)


def _seen(store: Store, table: Table, past: HistoryCache) -> tuple[Overview, Lines, dict[str, Verdict]]:
    seen = snapshot.read(store, table)
    names = [view.name for view in seen.pools]
    histories = past.samples([f"pool:{name}" for name in names])
    lines = {
        name: {
            "rate": sparkline.of_rate(history, "ended", now_ms=seen.now_ms),
            "busy": sparkline.of_level(history, "busy", now_ms=seen.now_ms),
        }
        for name, history in zip(names, histories, strict=True)
    }
    return seen, lines, {verdict.pool: verdict for verdict in verdicts(seen, histories)}
