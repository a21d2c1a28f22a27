"""The phrases that several rules use, and a diagnosis as text."""

from collections import Counter
from collections.abc import Iterator

from millpond.broker.stats.elasticity import SATURATED, Elasticity
from millpond.monitor.diagnosis import numbers
from millpond.monitor.diagnosis.diagnosis import Diagnosis, KindShare
from millpond.monitor.diagnosis.facts import PoolFacts


def make_diagnosis(facts: PoolFacts, state: str, why: str, advice: str = "", **fields: object) -> Diagnosis:
    """Return a diagnosis with the fields that all rules have in common, and with these `fields`."""
    measured = facts.current_elasticity
    return Diagnosis(
        pool=facts.view.name,
        state=state,  # type: ignore[arg-type]
        why=why,
        advice=advice,
        slots=facts.view.slots,
        trend=backlog_trend(facts),
        slot_time=tuple(slot_time_shares(facts)),
        kinds=kind_shares(facts),
        measured=() if measured is None else _measured_points(measured),
        outcome=slot_change_text(facts),
        probe_seconds=round(facts.probe_seconds, 1),
        compared=slowdown_text(facts),
        elasticity=None if measured is None else round(measured.value, 2),
        elasticity_error=None if measured is None else round(measured.error, 2),
        **fields,  # type: ignore[arg-type]
    )


def _measured_points(measured: Elasticity) -> tuple[tuple[int, float], ...]:
    """Return the measured throughput as pairs of a number of slots and a rate."""
    step = ((measured.step_part, measured.step_rate),) if measured.step is not None else ()
    return ((measured.part, measured.part_rate), *step, (measured.slots, measured.rate))


#: The maximum of kinds of a diagnosis.
MOST_KINDS = 20


def kind_shares(facts: PoolFacts) -> tuple[KindShare, ...]:
    """Return the figures of at most `MOST_KINDS` kinds, those that take most of the slots' time first."""
    by_time = sorted(facts.newest_window.kinds.items(), key=lambda item: -item[1].service_seconds)
    return tuple(
        KindShare(
            kind,
            round(facts.kind_time_share(kind), 3),
            round(facts.kind_rate(kind), 2),
            figures.mean_service_seconds,
            facts.usual.get(kind),
            round(figures.failed / max(1, figures.ended), 3),
            round(figures.retried / max(1, figures.ended), 3),
            next((error for error, _ in figures.errors.most_common(1)), ""),
        )
        for kind, figures in by_time[:MOST_KINDS]
    )


#: The effect of a change of slots is known if this share of them is in use, and this many tasks are ready.
USED, WAITING = 0.7, 1
#: A gain below this share of proportional growth is none.
NO_GAIN = 0.2


def slot_change_text(facts: PoolFacts) -> str:
    """Return the effect of the last change of slots beside the predicted one, as text.

    It is "" if no change was measured, or if the pool is too little used to show the effect.
    """
    before, slots, recent = facts.elasticity_before, facts.view.slots, facts.recent
    if before is facts.current_elasticity:
        return ""  # it was measured with more slots for a while: nothing was changed
    if before is None or not before.rate or slots == 0 or facts.use < USED or facts.ready < WAITING:
        return ""
    if not recent.seconds or recent.ended < 20:
        return ""
    predicted, actual = numbers.predicted_and_actual_gain(before, slots, recent.ended / recent.seconds)
    verb = "grew" if slots > before.slots else "shrank"
    text = f"{verb} from {before.slots} to {slots} slots: {actual:+.0%}, {predicted:+.0%} predicted"
    if slots > before.slots and actual < NO_GAIN * (slots / before.slots - 1):
        return f"{text}: no gain, go back to {before.slots}"
    return text


#: The times that service times are compared with: words, seconds ago, and how far off an entry may be.
TIMES = (("an hour ago", 3_600, 600), ("yesterday at this time", 86_400, 2_400))
#: A change of service times that is worth a word.
CHANGED = 1.25


def slowdown_text(facts: PoolFacts) -> str:
    """Return how long runs take, compared with an hour ago and with yesterday, as text.

    It is "" if the times are alike or not known.
    """
    multiples = [
        f"{times:.1f} times as long as {when}"
        for when, ago, within in TIMES
        if (times := facts.slowdown_since(ago, within)) is not None and not 1 / CHANGED < times < CHANGED
    ]
    return f"runs of the same kinds take {' and '.join(multiples)}" if multiples else ""


#: The labels of the categories of places.
CATEGORIES = {
    "processor": "on a processor",
    "runnable": "waiting for a processor",
    "interpreter": "waiting for the interpreter",
    "sleep": "asleep",
    "child": "a child process of handlers",
    "file": "files",
    "lock": "a lock",
    "thread": "other threads",
    "peer": "a peer",
    "unknown": "unknown",
    "others": "others",
}


def slot_time_shares(facts: PoolFacts) -> Iterator[tuple[str, float]]:
    """Yield the labels of the parts of a slot's time and their shares, the largest first, adding up to 1."""
    places, use = facts.places, facts.use
    total = sum(places.values())
    if not total or not facts.view.running:
        return
    spent: Counter[str] = Counter()
    for place, micros in places.items():
        has_name = place.category in ("peer", "lock") and place.name
        label = CATEGORIES.get(place.category, place.category)
        spent[f"{place.category} {place.name}" if has_name else label] += micros
    shares = [(label, use * micros / total) for label, micros in spent.items()]
    yield from sorted([*shares, ("waiting for a message", 1 - use)], key=lambda part: -part[1])


def backlog_trend(facts: PoolFacts) -> str:
    """Return when the backlog will be cleared or how fast it grows, as text.

    It is "" without a backlog, and if nothing fetches from it.
    """
    fetches = facts.view.running and facts.view.drained_at_ms is None
    if not facts.ready or not fetches or all(queue.limits.paused for queue in facts.waiting_queues):
        return ""
    clear = numbers.clear_seconds(facts.ready, rate=facts.rate, in_rate=facts.in_rate)
    if clear is not None:
        return f"cleared in {duration_text(clear)}"
    return f"grows by {facts.in_rate - facts.rate:,.1f} a second" if facts.in_rate > facts.rate else ""


def bottleneck_name(facts: PoolFacts, share: float) -> str:
    """Return the name of the place of most waits, with the library and the line that wait."""
    largest = facts.largest_place("peer", "child", "file", "sleep", "lock", "thread")
    if largest is None or not share:
        return "the dependency"
    place = largest[0]
    nouns = {
        "child": "a child process",
        "file": "a file",
        "sleep": "a sleep in the handler",
        "thread": "other threads of the process",
    }
    name = place.name or nouns.get(place.category, place.category)
    if place.library:
        return f"{name} (by {place.library}, at {place.line})"
    return f"{name} (at {place.line})" if place.line else name


def main_wait(facts: PoolFacts) -> tuple[str, str]:
    """Return the name of the place at which slots wait most, and the words for it; both empty without one."""
    largest = facts.largest_place("peer", "child", "file", "sleep", "thread")
    if largest is None:
        return "", ""
    place, share = largest
    spent = f", {share:.0%} of that time waiting for {bottleneck_name(facts, share)}"
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
