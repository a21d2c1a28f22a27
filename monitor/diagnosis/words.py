"""Write what is said of a pool: the parts of sentences that the rules share."""

from collections import Counter
from collections.abc import Iterator

from millpond.broker.stats.elasticity import Elasticity
from millpond.monitor.diagnosis import numbers
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import PoolFacts


def said(facts: PoolFacts, state: str, why: str, advice: str = "", **more: object) -> Diagnosis:
    """Return a verdict with what every verdict has."""
    measured = facts.believed
    return Diagnosis(
        pool=facts.view.name,
        state=state,  # type: ignore[arg-type]
        why=why,
        advice=advice,
        slots=facts.view.slots,
        trend=trend(facts),
        slot_time=tuple(slot_time(facts)),
        measured=()
        if measured is None
        else ((measured.part, measured.part_rate), (measured.slots, measured.rate)),
        elasticity=None if measured is None else round(measured.value, 2),
        elasticity_error=None if measured is None else round(measured.error, 2),
        **more,  # type: ignore[arg-type]
    )


#: What the categories of places are called.
CATEGORIES = {
    "processor": "on a processor",
    "runnable": "waiting for a processor",
    "interpreter": "waiting for the interpreter",
    "sleep": "asleep",
    "child": "a program that handlers started",
    "file": "files",
    "lock": "a lock",
    "peer": "a peer",
    "unknown": "unknown",
    "others": "others",
}


def slot_time(facts: PoolFacts) -> Iterator[tuple[str, float]]:
    """Yield where a slot's time goes, the largest share first; the shares add up to 1."""
    places, use = facts.places, facts.use
    total = sum(places.values())
    if not total or not facts.view.running:
        return
    spent: Counter[str] = Counter()
    for place, micros in places.items():
        named = CATEGORIES.get(place.category, place.category)
        waits = place.category in ("peer", "lock") and place.name
        spent[f"{place.category} {place.name}" if waits else named] += micros
    found = [(label, use * micros / total) for label, micros in spent.items()]
    yield from sorted([*found, ("waiting for a message", 1 - use)], key=lambda each: -each[1])


def trend(facts: PoolFacts) -> str:
    """Return the backlog's way: when it is clear, or how fast it grows; empty where nothing waits."""
    if not facts.ready:
        return ""
    clear = numbers.clear_seconds(facts.ready, rate=facts.rate, in_rate=facts.in_rate)
    if clear is not None:
        return f"clear in {duration(clear)}"
    return f"grows by {facts.in_rate - facts.rate:,.1f} a second" if facts.in_rate > facts.rate else ""


def named(facts: PoolFacts, share: float) -> str:
    """Return the name of the place that took most, with the library and the line that waits."""
    found = facts.most("peer", "child", "file", "sleep", "lock")
    if found is None or not share:
        return "what the tasks wait for"
    place = found[0]
    what = {"child": "a program that they started", "file": "a file", "sleep": "a sleep of their own"}
    name = place.name or what.get(place.category, place.category)
    by = (
        f" (by {place.library}, at {place.line})"
        if place.library
        else f" (at {place.line})"
        if place.line
        else ""
    )
    return f"{name}{by}"


def use(facts: PoolFacts) -> str:
    """Return how many slots are in use."""
    return f"{facts.use:.0%} of {facts.view.slots} slots are in use"


def rate(facts: PoolFacts) -> str:
    """Return how many tasks end a second."""
    return f"{facts.rate:,.1f} tasks a second end"


def waiting(facts: PoolFacts) -> str:
    """Return how many messages wait."""
    return f"{facts.ready:,} wait"


def elasticity(measured: Elasticity) -> str:
    """Return a measured elasticity with its interval."""
    return f"elasticity {measured.value:.2f} ± {measured.error:.2f}"


def duration(seconds: float) -> str:
    """Return a length of time, short."""
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def lines(verdict: Diagnosis) -> Iterator[str]:
    """Yield the verdict as a person reads it, a line each."""
    trend = f" ({verdict.trend})" if verdict.trend else ""
    yield f"{verdict.pool}: {verdict.state}{trend}. {verdict.why}"
    if verdict.advice:
        yield f"  {verdict.advice}"
    for each in verdict.against:
        yield f"  against it: {each}"
    if verdict.command:
        yield f"  {verdict.command}"
