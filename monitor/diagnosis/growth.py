"""The rule for the measured elasticity: does throughput grow with slots, and how many are wanted?"""

import math

from millpond.broker.stats import processors
from millpond.broker.stats.elasticity import Elasticity
from millpond.monitor.diagnosis import causes, numbers, words
from millpond.monitor.diagnosis.causes import FULL, MOST, SLOWER
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import PoolFacts
from millpond.monitor.diagnosis.shared_fields import make_diagnosis
from millpond.tasks.toml_names import table_header

#: The share of slot time from which a saturated dependency is named.
NAMED = 0.3
#: The multiple of the rate at which the hosts' processors are full that leaves no room for more slots.
NO_ROOM = 1.1


def diagnose_by_elasticity(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose by the measured elasticity: `workers`, a saturated `dependency`, or `unclear`.

    Return None if the elasticity was not measured, if fewer slots than `FULL` are in use, or if there is no
    room for more slots.
    """
    measured = facts.current_elasticity
    if measured is None or facts.use < FULL:
        return None
    if measured.grows:
        return _diagnose_too_few_slots(facts, measured)
    if measured.saturated:
        return _diagnose_saturated_processors(facts) or _diagnose_saturated_dependency(facts, measured)
    name, spent = words.main_wait(facts)
    why = f"{words.in_use_text(facts)}{spent}; {words.throughput_text(measured)}: it is not yet certain "
    why += f"whether throughput grows with slots ({words.elasticity_text(measured)})"
    return make_diagnosis(
        facts,
        "unclear",
        why,
        "measure it again",
        name=name,
        confidence=0.4,
        command=words.probe_command(facts),
    )


def _diagnose_too_few_slots(facts: PoolFacts, measured: Elasticity) -> Diagnosis | None:
    """Diagnose `workers`: more slots help, with their number.

    Return None if the hosts' processors or a queue's limit leave no room for them.
    """
    slots, mean, max_growth = facts.view.slots, facts.mean_service_seconds or 0.0, facts.headroom
    if max_growth < NO_ROOM:
        return None  # the processors would be full
    wanted = numbers.slots_wanted(slots, in_rate=facts.in_rate, service_seconds=mean)
    wanted, limit_evidence = _limit_slots(facts, wanted)
    if wanted <= slots:
        return None
    rate = numbers.predicted_rate(measured, wanted, max_growth=max_growth)
    rate_now = numbers.rate_now(measured) if measured.slots == slots else facts.rate
    clear = numbers.clear_seconds(facts.ready, rate=rate, in_rate=facts.in_rate)
    gain = f"{wanted} slots would bring {rate:,.1f} tasks a second (now {rate_now:,.1f})"
    gain += f" and clear the backlog in {words.duration_text(clear)}" if clear is not None else ""
    setting = f"concurrency = {math.ceil(wanted / max(1, len(facts.view.running)))}"
    if measured.slots != slots:  # measured with more processes: the slots of one may share an interpreter
        setting = f"processes = {math.ceil(len(facts.view.running) * wanted / slots)}"
    growth = f"throughput grows with slots ({words.elasticity_text(measured)})"
    throughput, dominant_kind = words.throughput_text(measured), _dominant_kind_evidence(facts)
    why = (f"{throughput}: {growth}", words.in_use_text(facts), words.ready_text(facts), *dominant_kind)
    full = f"the processors of the hosts are full at {max_growth:.1f} times the rate"
    against = (*((full,) if max_growth < processors.ROOM else ()), *limit_evidence)
    return make_diagnosis(
        facts,
        "workers",
        "; ".join(why),
        f"{gain}: set {setting} under {table_header('pools', facts.view.name)} in millpond.toml",
        confidence=min(0.95, 0.6 + measured.low / 3),
        evidence=(throughput, *dominant_kind),
        against=against,
        slots_wanted=wanted,
        predicted_rate=rate,
        clear_seconds=clear,
    )


def _limit_slots(facts: PoolFacts, wanted: int) -> tuple[int, tuple[str, ...]]:
    """Return the number of slots that helps, and the evidence for a limit on it.

    It is `wanted`, or the in-flight limit of the only waiting queue if that is lower. Without such a limit
    the evidence is ().
    """
    limits = facts.waiting_queues[0].limits if len(facts.waiting_queues) == 1 else None
    if limits is None or not limits.in_flight or limits.in_flight >= wanted:
        return wanted, ()
    queue = facts.waiting_queues[0].name
    return limits.in_flight, (f"queue {queue} is limited to {limits.in_flight} tasks at once",)


def _dominant_kind_evidence(facts: PoolFacts) -> tuple[str, ...]:
    """Return the evidence that one kind takes most of the slots' time with few of the runs, or ()."""
    window = facts.newest_window
    for kind, figures in window.kinds.items():
        time, runs = facts.kind_time_share(kind), figures.ended / max(1, window.ended)
        if time >= MOST and runs <= time / 3:
            shares = f"{time:.0%} of the slots' time with {runs:.0%} of the runs"
            return (f"{kind} takes {shares}: a pool of its own?",)
    return ()


def _diagnose_saturated_processors(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `processor` where slots compute, and wait for nothing that has a name."""
    if not _saturated_by(facts)[0]:
        return causes.diagnose_busy_processors(facts, least_if_full=NAMED)
    largest = facts.largest_place("peer", "child", "file", "lock", "thread")
    # C code that holds the interpreter makes samples late: the stack is then of another moment than the wait.
    if largest is not None and largest[0].category in ("thread", "lock") and not largest[0].name:
        return causes.diagnose_busy_processors(facts, least=NAMED)
    return None


def _diagnose_saturated_dependency(facts: PoolFacts, measured: Elasticity) -> Diagnosis:
    """Diagnose `dependency`: a dependency is saturated.

    The diagnosis has the number of slots that suffice.
    """
    usual = _usual_mean(facts)
    enough = numbers.slots_that_suffice(measured, usual_seconds=usual)
    name, full_name, evidence = _saturated_by(facts)
    queue = facts.waiting_queues[0].name if facts.waiting_queues else ""
    return make_diagnosis(
        facts,
        "dependency",
        f"{full_name} is saturated: {words.throughput_text(measured)}, so throughput does not grow with "
        f"slots ({words.elasticity_text(measured)}); {words.in_use_text(facts)}",
        f"{words.slots_suffice_text(enough)}, more would only wait; "
        f"make {full_name} faster, or call it less often",
        name=name,
        confidence=0.9 if name else 0.7,
        evidence=(words.throughput_text(measured), *evidence),
        slots_wanted=enough,
        predicted_rate=measured.rate,
        command=f"millpond queue set {queue} --in-flight {enough}" if queue else "",
    )


def _saturated_by(facts: PoolFacts) -> tuple[str, str, tuple[str, ...]]:
    """Return the name of the dependency that slots wait for, its name in a sentence, and the evidence.

    Handlers whose requests are refused sleep until the next request. Then the peer of these requests is
    named.
    """
    largest = facts.largest_place("peer", "child", "file", "lock", "thread")
    if largest is None or largest[1] < NAMED:
        largest = facts.largest_place("sleep")
    if largest is None or largest[1] < NAMED:
        return "", "the dependency", ()
    place, share = largest
    if place.category == "sleep":
        evidence = f"{share:.0%} of the slots' time is spent asleep at {place.line}"
        if (peer := facts.largest_place("peer")) is not None:
            return peer[0].name, f"{peer[0].name} (asked at {peer[0].line})", (evidence,)
        return place.line, f"the dependency for which handlers sleep at {place.line}", (evidence,)
    full_name = words.place_text(place)
    evidence = f"{share:.0%} of the slots' time is spent waiting for {full_name}"
    return place.name or place.library or place.line, full_name, (evidence,)


def _usual_mean(facts: PoolFacts) -> float | None:
    """Return the usual mean service time of the kinds that run now, in seconds.

    Return None if it is not known, or if runs now take less than `SLOWER` times as long.
    """
    known = [
        (figures.ended, facts.usual[kind])
        for kind, figures in facts.minute.kinds.items()
        if kind in facts.usual
    ]
    count, mean = sum(ended for ended, _ in known), facts.mean_service_seconds
    if not count or mean is None:
        return None
    usual_mean = sum(ended * usual for ended, usual in known) / count
    return usual_mean if usual_mean < mean / SLOWER else None
