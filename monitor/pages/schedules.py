"""The page of schedules: last and next period of each, and the leading scheduler."""

from millpond.broker import schedules
from millpond.monitor.pages.handler import PageHandler


class SchedulesPage(PageHandler):
    """The page of all schedules."""

    async def get(self) -> None:
        """Render the schedules."""
        all_schedules = await self.call_broker(schedules.read_all_schedules, self.store)
        leader = await self.call_broker(schedules.read_leader, self.store)
        self.render_page("schedules.html", tab="schedules", schedules=all_schedules, leader=leader)
