"""Run a drill: wait until all is well, break one thing, record the signs and their times, repair it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

from tests.scenarios.drills.drills import Drill
from tests.scenarios.drills.prometheus import firing
from tests.scenarios.drills.world import QUESTIONS, World

#: How many times slower than an idle machine this one may be.
PATIENCE = 3.0
#: The seconds between two looks at the signs, if durations are shortened, and if they are as shipped.
LOOK_SECONDS, CALM_SECONDS = 0.5, 2.0
#: The longest delay and range of an alert together, in minutes of the shipped rules.
LONGEST_MINUTES = 16


@dataclass
class Seen:
    """When each sign was first seen, in seconds after the fault, and the time until all was well again.

    `page_seconds` and `well_seconds` are None if that was not seen.
    """

    drill: Drill
    alerts: dict[str, float] = field(default_factory=dict)
    unwell: dict[str, float] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    page_seconds: float | None = None
    well_seconds: float | None = None
    page: str = ""

    @property
    def missing(self) -> list[str]:
        """The signs that were expected and have not come."""
        page = [] if self.page_seconds is not None else [f"{self.drill.page} with {self.drill.words}"]
        return [
            *sorted(self.drill.alerts - set(self.alerts)),
            *sorted(self.drill.unwell - set(self.unwell)),
            *page,
        ]


def run(drill: Drill, world: World) -> Seen:
    """Run a drill and return the signs that came."""
    seen = Seen(drill)
    _until(lambda: is_well(world, drill), drill.patience_seconds, world)
    before, begun = firing(world.prometheus), monotonic()
    with drill.fault(world) as broken:

        def look() -> bool:
            at = monotonic() - begun
            for alert in firing(world.prometheus) - before:
                seen.alerts.setdefault(alert, at)
            for question, faults in broken.health().items():
                seen.unwell.setdefault(question, at)
                seen.faults.setdefault(question, faults)
            seen.page = world.page(drill.page)
            if broken.gone and broken.gone not in seen.page:
                seen.page = seen.page.replace("leader", "another leader")
            if seen.page_seconds is None and all(word in seen.page for word in drill.words):
                seen.page_seconds = at
            return not seen.missing

        _until(look, drill.patience_seconds, world)
    mended = monotonic()
    if _until(lambda: is_well(world, None), drill.patience_seconds, world):
        seen.well_seconds = monotonic() - mended
    return seen


def is_well(world: World, drill: Drill | None) -> bool:
    """True if all health checks succeed, and neither an alert about the broker nor one of the drill fires."""
    told = firing(world.prometheus)
    if drill is not None and told & drill.alerts:
        return False
    return not world.health() and not told & {"MillpondBrokerAway", "MillpondBrokerRefusesWrites"}


def table(seen: list[Seen]) -> str:
    """Return the signs of each fault as a table in Markdown."""
    lines = [
        "| drill | alerts that fire | health that says no | what the page shows | well again |",
        "|---|---|---|---|---|",
    ]
    for each in seen:
        cells = [each.drill.name, _timed(each.alerts), _timed(each.unwell, QUESTIONS), _page(each)]
        cells.append("no" if each.well_seconds is None else f"{each.well_seconds:.0f} s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _page(seen: Seen) -> str:
    if seen.page_seconds is None:
        return "not seen"
    return f"`{seen.drill.page}`: {', '.join(seen.drill.words)} ({seen.page_seconds:.0f} s)"


def _timed(found: dict[str, float], order: Any = ()) -> str:
    names = [name for name in order if name in found] or sorted(found, key=found.__getitem__)
    return ", ".join(f"{name} ({found[name]:.0f} s)" for name in names) or "none"


def _until(look: Callable[[], bool], seconds: float, world: World) -> bool:
    """Call `look` until it returns True. Return False if it has not within the time of alerts and health."""
    deadline = monotonic() + PATIENCE * seconds + LONGEST_MINUTES * 60 / world.scale
    while not look():
        if monotonic() > deadline:
            return False
        sleep(LOOK_SECONDS if world.scale > 1 else CALM_SECONDS)
    return True
