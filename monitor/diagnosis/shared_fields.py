"""Make a diagnosis, with the fields that are the same whichever rule applies: trend, slots' time, kinds."""

from collections import Counter
from collections.abc import Iterator

from millpond.broker.stats.elasticity import Elasticity
from millpond.monitor.diagnosis import numbers
from millpond.monitor.diagnosis.diagnosis import Diagnosis, KindShare
from millpond.monitor.diagnosis.facts import MEAN_ENDS, PoolFacts
from millpond.monitor.diagnosis.words import duration_text

#: The maximum of kinds of a diagnosis.
MOST_KINDS = 20

#: The effect of a change of slots is known if this share of them is in use while tasks are ready.
USED = 0.7
#: A gain below this share of proportional growth is none.
NO_GAIN = 0.2

#: The times that service times are compared with: words, seconds ago, and how far off an entry may be.
TIMES = (("an hour ago", 3_600, 600), ("yesterday at this time", 86_400, 2_400))
#: A change of service times that is worth a word.
CHANGED = 1.25

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
        slot_time=tuple(_slot_time_shares(facts)),
        kinds=_kind_shares(facts),
        measured=() if measured is None else _measured_points(measured),
        outcome=_slot_change_text(facts),
        probe_seconds=round(facts.probe_seconds, 1),
        compared=_slowdown_text(facts),
        elasticity=None if measured is None else round(measured.value, 2),
        elasticity_error=None if measured is None else round(measured.error, 2),
        **fields,  # type: ignore[arg-type]
    )


def _measured_points(measured: Elasticity) -> tuple[tuple[int, float], ...]:
    """Return the measured throughput as pairs of a number of slots and a rate."""
    step = ((measured.step_part, measured.step_rate),) if measured.step is not None else ()
    return ((measured.part, measured.part_rate), *step, (measured.slots, measured.rate))


def _kind_shares(facts: PoolFacts) -> tuple[KindShare, ...]:
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


def _slot_change_text(facts: PoolFacts) -> str:
    """Return the effect of the last change of slots beside the predicted one, as text.

    It is "" if no change was measured, or if the pool is too little used to show the effect.
    """
    before, slots, recent = facts.elasticity_before, facts.view.slots, facts.recent
    if before is facts.current_elasticity:
        return ""  # it was measured with more slots for a while: nothing was changed
    if before is None or not before.rate or slots == 0 or facts.use < USED or not facts.ready:
        return ""
    if not recent.seconds or recent.ended < MEAN_ENDS:
        return ""
    predicted, actual = numbers.predicted_and_actual_gain(before, slots, recent.ended / recent.seconds)
    verb = "grew" if slots > before.slots else "shrank"
    text = f"{verb} from {before.slots} to {slots} slots: {actual:+.0%}, {predicted:+.0%} predicted"
    if slots > before.slots and actual < NO_GAIN * (slots / before.slots - 1):
        return f"{text}: no gain, go back to {before.slots}"
    return text


def _slowdown_text(facts: PoolFacts) -> str:
    """Return how long runs take, compared with an hour ago and with yesterday, as text.

    It is "" if the times are alike or not known.
    """
    multiples = [
        f"{times:.1f} times as long as {when}"
        for when, ago, within in TIMES
        if (times := facts.slowdown_since(ago, within)) is not None and not 1 / CHANGED < times < CHANGED
    ]
    return f"runs of the same kinds take {' and '.join(multiples)}" if multiples else ""


def _slot_time_shares(facts: PoolFacts) -> Iterator[tuple[str, float]]:
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
