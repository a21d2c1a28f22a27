"""The rules and the advice for pools that lack batching.

Tasks may be too short, a run may make many calls, or a call may cost more than its items.
"""

import math

from millpond.broker.stats.calls import CallFigures
from millpond.monitor.diagnosis import words
from millpond.monitor.diagnosis.causes import SHORT_SECONDS
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import PoolFacts
from millpond.monitor.diagnosis.shared_fields import make_diagnosis

#: A run is chatty if this many round trips take this share of its time, or if more take a smaller share.
CHATTY, CHATTY_SHARE = 8, 0.4
VERY_CHATTY, VERY_CHATTY_SHARE = 20, 0.2
#: Calls take unequally long if one that is looked at has waited for this multiple of their mean, and longer
#: than these seconds. (Half of the mean if they are equal, the mean if they are random.)
UNEVEN, UNEVEN_SECONDS = 3.0, 0.02
#: Calls cost more than their items if this share of a call does not depend on them.
FIXED = 0.5
#: The numbers of items a call that are proposed, as a multiple of those of today, and the least gain.
MORE_ITEMS, LEAST_GAIN = 10, 2.0
#: A protocol with several round trips for each mail, whatever its client does.
_TALKATIVE = ("smtplib",)


def _batching_advice(peer: str = "") -> str:
    """Return the advice to put many items into one call of a peer, or into one task if no peer is named."""
    if peer:
        return f"ask {peer} once for many items: a bulk statement, a pipeline, or one request with a list"
    return "put many items into one message, so that one task does the work of many"


def diagnose_short_tasks(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `batching`: tasks are so short that fetching them costs more than running them."""
    mean = facts.mean_service_seconds
    if mean is None or mean >= SHORT_SECONDS:
        return None
    return make_diagnosis(
        facts,
        "batching",
        f"a task takes {words.duration_text(mean)}, {words.rate_text(facts)}: "
        "fetching it costs more than running it",
        _batching_advice(),
        confidence=0.9,
    )


def diagnose_chatty_runs(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `batching`: each run sends many requests to a peer, one after the other."""
    peer_time = facts.largest_place("peer")
    if peer_time is None or peer_time[0].library in _TALKATIVE:
        return None
    place, share = peer_time
    calls, mean = facts.calls.get((place.kind, place.name)), facts.kind_mean_seconds(place.kind)
    trips = calls.round_trips(mean) if calls is not None and mean is not None else None
    if trips is None or calls is None or mean is None or not _is_chatty(trips, share):
        return None
    if calls.mean_wait_seconds > max(UNEVEN_SECONDS, UNEVEN * mean / trips):
        return None  # few of the calls take most of the time: they wait for something else than the way
    measured = facts.current_elasticity
    if measured is not None and measured.saturated:
        return None  # fewer calls need not be less work for the dependency
    gain = 1 / max(0.02, 1 - share * (1 - 1 / trips))
    evidence = f"a run of {place.kind} has about {trips:.0f} round trips to {place.name}"
    return make_diagnosis(
        facts,
        "batching",
        f"{evidence}, {share:.0%} of its time; {words.in_use_text(facts)}",
        f"{_batching_advice(place.name)}; up to {gain:.1f} times as many runs",
        name=place.name,
        confidence=0.8,
        evidence=(evidence,),
        against=_growth_evidence(facts),
        predicted_gain=round(gain, 1),
    )


def _is_chatty(trips: float, share: float) -> bool:
    """True if a run with this number of round trips, and this share of its time in them, is chatty."""
    return (trips >= CHATTY and share >= CHATTY_SHARE) or (
        trips >= VERY_CHATTY and share >= VERY_CHATTY_SHARE
    )


def diagnose_fixed_cost(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `batching`: a call costs much however few items it has, R = a + b * items with a large a."""
    costs = [
        (kind, peer, calls, fixed)
        for (kind, peer), calls in facts.calls.items()
        if facts.kind_time_share(kind) >= 0.5 and (fixed := _fixed_share(facts, kind, calls)) is not None
    ]
    if not costs:
        return None
    kind, peer, calls, fixed = max(costs, key=lambda each: (each[1] != "", each[3]))
    items = calls.mean_items
    many = max(MORE_ITEMS, math.ceil(MORE_ITEMS * items))
    gain = many / items / (fixed + (1 - fixed) * many / items)
    if fixed < FIXED or gain < LEAST_GAIN:
        return None
    place = facts.largest_place("peer", "child", "file")
    name = peer or (place[0].name or place[0].library if place is not None and place[1] >= 0.3 else "")
    evidence = f"{fixed:.0%} of a run of {kind} does not depend on its {items:.1f} items"
    return make_diagnosis(
        facts,
        "batching",
        f"{evidence} (R = a + b * items); {words.in_use_text(facts)}",
        f"{_batching_advice(name)}: {many} items at once would do {gain:.1f} times as many a second",
        name=name,
        confidence=0.8,
        evidence=(evidence,),
        against=_growth_evidence(facts),
        predicted_gain=round(gain, 1),
    )


def _fixed_share(facts: PoolFacts, kind: str, calls: CallFigures) -> float | None:
    """Return the share of a call's time that does not depend on its items, 0 to 1, or None if not known.

    The time of a call includes waits for other slots. While these may be long, only the slope b is used: a
    peer that works on at least one call at a time has a fixed cost of at least 1 / rate - b * items.
    """
    line = calls.cost_line
    if line is None or not calls.micros:
        return None
    own = calls.mean_items * line[1] / (calls.micros / calls.runs / 1e6)
    alone = calls.mean_items * line[1] * facts.kind_rate(kind)
    measured = facts.current_elasticity
    if measured is not None and measured.grows:
        return max(0.0, 1 - own)
    if measured is not None and measured.saturated:
        return max(0.0, 1 - alone)
    return max(0.0, min(1 - own, 1 - alone))


def _growth_evidence(facts: PoolFacts) -> tuple[str, ...]:
    """Return the evidence that more slots would help too, or () if that was not measured."""
    measured = facts.current_elasticity
    if measured is None or not measured.grows:
        return ()
    return (f"throughput grows with slots as well ({words.elasticity_text(measured)})",)
