"""The phrases that several rules use, and a diagnosis as text."""

from collections.abc import Iterator

from millpond.broker.stats.elasticity import SATURATED, Elasticity
from millpond.broker.stats.window import Place
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import PoolFacts

#: The words for a place without a name, by its category.
_UNNAMED = {
    "child": "a child process",
    "file": "a file",
    "sleep": "a sleep in the handler",
    "thread": "other threads of the process",
    "unknown": "the dependency",
}


def place_text(place: Place) -> str:
    """Return a place as text: its name, with the library and the line that wait there."""
    name = place.name or _UNNAMED.get(place.category, place.category)
    if place.library:
        return f"{name} (by {place.library}, at {place.line})"
    return f"{name} (at {place.line})" if place.line else name


def main_wait(facts: PoolFacts) -> tuple[str, str]:
    """Return the name of the place at which slots wait most, and the words for it; both empty without one."""
    largest = facts.largest_place("peer", "child", "file", "sleep", "lock", "thread")
    if largest is None:
        return "", ""
    place, share = largest
    spent = f", {share:.0%} of that time waiting for {place_text(place)}"
    return place.name or place.library, spent


def probe_command(facts: PoolFacts) -> str:
    """Return the command that measures the effect of more slots. For a pool of one slot it adds a second."""
    second = " --second-slot" if facts.view.slots == 1 else ""
    return f"millpond why {facts.view.name} --probe{second}"


def in_use_text(facts: PoolFacts) -> str:
    """Return the share of slots in use, as text."""
    if facts.view.slots == 1:
        return f"the one slot is in use {facts.use:.0%} of the time"
    return f"{facts.use:.0%} of {facts.view.slots} slots are in use"


def rate_text(facts: PoolFacts) -> str:
    """Return the rate at which tasks end, as text."""
    return f"{facts.rate:,.1f} tasks end a second"


def ready_text(facts: PoolFacts) -> str:
    """Return the number of ready tasks, as text."""
    return "1 task is ready" if facts.ready == 1 else f"{facts.ready:,} tasks are ready"


def slots_suffice_text(slots: int) -> str:
    """Return the text that this number of slots suffices."""
    return "1 slot suffices" if slots == 1 else f"{slots} slots suffice"


def throughput_text(measured: Elasticity) -> str:
    """Return the measured throughput of a part of the slots and of all slots, as text.

    The part is the smallest one. If throughput stopped to grow only in the last step to all slots, it is the
    part before that step.
    """
    slots, rate = measured.part, measured.part_rate
    if measured.step is not None and measured.high > SATURATED and not measured.grows:
        slots, rate = measured.step_part, measured.step_rate
    part = "1 slot" if slots == 1 else f"{slots} slots"
    return f"{part} gave {rate:,.1f} tasks a second, {measured.slots} gave {measured.rate:,.1f}"


def elasticity_text(measured: Elasticity) -> str:
    """Return a measured elasticity with its interval, as text."""
    return f"elasticity {measured.value:.2f} ± {measured.error:.2f}"


def duration_text(seconds: float) -> str:
    """Return a duration as a short text: `3 min`, `1.5 s` or `20.0 ms`."""
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def diagnosis_lines(result: Diagnosis) -> Iterator[str]:
    """Yield the lines of text of a diagnosis."""
    trend = f" ({result.trend})" if result.trend else ""
    yield f"{result.pool}: {result.state}{trend}. {result.why}"
    if result.advice:
        yield f"  {result.advice}"
    if result.compared:
        yield f"  {result.compared}"
    if result.outcome:
        yield f"  {result.outcome}"
    for counter_evidence in result.against:
        yield f"  against it: {counter_evidence}"
    if result.command:
        yield f"  {result.command}"
