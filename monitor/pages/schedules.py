"""The page of schedules: last and next period of each, and the leading scheduler."""

from millpond.broker import schedules
from millpond.broker.schedules import Schedule
from millpond.monitor.pages.handler import PageHandler


class Schedules(PageHandler):
    """The page of all schedules."""

    async def get(self) -> None:
        """Render the schedules."""
        states, leader = await self.call_broker(self._schedules_and_leader)
        self.render_page("schedules.html", tab="schedules", schedules=states, leader=leader)

    def _schedules_and_leader(self) -> tuple[list[Schedule], str | None]:
        return schedules.read_all_schedules(self.store), schedules.read_leader(self.store)
