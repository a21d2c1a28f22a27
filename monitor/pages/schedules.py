"""Show the periodic tasks: when each was sent last, when it is next, and who leads the schedulers."""

from millpond.broker import schedules
from millpond.broker.schedules import Schedule
from millpond.monitor.pages.handler import Handler


class Schedules(Handler):
    """Show every schedule on one page."""

    async def get(self) -> None:
        """Render them as they are now."""
        found, leader = await self.ask(self._found)
        self.show("schedules.html", tab="schedules", found=found, leader=leader)

    def _found(self) -> tuple[list[Schedule], str | None]:
        return schedules.schedules(self.store), schedules.leader(self.store)
