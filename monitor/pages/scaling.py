"""Tell an autoscaler, KEDA's scaler `metrics-api` above all, how much there is to do for a pool."""

from dataclasses import asdict

from tornado.web import HTTPError

from millpond.monitor.pages.api import Json
from millpond.monitor.scaling import demand


class Scaling(Json):
    """Tell the demand on one pool: two numbers, never null."""

    async def get(self, pool: str) -> None:
        """Answer with `tasks` and `oldest_seconds`, or 404."""
        if pool not in self.table.pools:
            raise HTTPError(404, f"no pool is named {pool!r}")
        self.answer(asdict(await self.ask(demand, self.store, self.table, pool)))
