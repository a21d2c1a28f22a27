"""The rules for causes of a backlog: from the time that slots spend, and from the measured elasticity."""

import math
from dataclasses import replace

from millpond.broker.stats import processors
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.window import RESULTS
from millpond.monitor.diagnosis import numbers, words
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import ENOUGH, PoolFacts

#: Shares of runs that count as failing, of slot time as the cause, of slots as all in use.
FAILING, MOST, FULL = 0.5, 0.5, 0.5
#: The shares of slot time, and of the hosts' processors, from which a pool counts as computing.
COMPUTING, FULL_HOST = 0.6, 0.9
#: The share of slot time from which a saturated dependency is named.
NAMED = 0.3
#: The name of a lock that is a pool of connections begins so.
CONNECTION_POOL = "the connection pool"
#: Runs are slow at this multiple of their usual time.
SLOWER = 2.0
#: No run ends any more if none has for these seconds, or if at least so many should have ended.
SILENT_SECONDS, MISSED_ENDS = 20.0, 5
#: The multiple of the rate at which the hosts' processors are full that leaves no room for more slots.
NO_ROOM = 1.1
#: A process whose main thread computes for this share of the time fetches as fast as it can.
BUSY_LOOP = 0.7
#: Below this mean service time, fetching a task costs more than running it, seconds.
SHORT_SECONDS = 0.002
#: Below this use, slots wait for messages. From these seconds on, the broker's replies are late. Children
#: are replaced often if there is one for fewer than this many tasks.
LATE_USE, LATE_SECONDS, OFTEN = 0.7, 0.01, 20


def failing_runs(facts: PoolFacts) -> Diagnosis | None:
    """Most runs fail or are retried: more slots would fail faster."""
    window = facts.recent if facts.recent.ended >= ENOUGH else facts.minute
    bad = {kind: figures.failed + figures.retried for kind, figures in window.kinds.items()}
    if not window.ended or sum(bad.values()) < FAILING * window.ended:
        return None
    kind = max(bad, key=lambda each: bad[each])
    figures = window.kinds[kind]
    error = figures.errors.most_common(1)
    named = f", most with {error[0][0]}" if error else ""
    how = "are retried" if figures.retried > figures.failed else "fail"
    share = bad[kind] / max(1, figures.ended)
    return words.make_diagnosis(
        facts,
        "failing",
        f"{share:.0%} of the runs of {kind} {how}{named}; {words.ready_text(facts)}",
        "find out why they fail; more slots would only fail faster",
        name=kind,
        confidence=0.95,
        command="millpond dead" if figures.failed else f"millpond queue show {facts.waiting[0].name}",
    )


def busy_processors(facts: PoolFacts) -> Diagnosis | None:
    """Slots compute, wait for a processor or for the interpreter."""
    view, measured = facts.view, facts.current_elasticity
    computing = facts.share_of("processor", "runnable", "interpreter")
    full = bool(view.running) and min(report.host_busy for report in view.running) >= FULL_HOST
    if computing < COMPUTING and not (full and computing >= MOST):
        return None
    if measured is not None and measured.grows and facts.has_room:
        return None  # it is measured that more slots bring more
    evidence = [f"{computing:.0%} of the slots' time is spent computing or waiting for a processor"]
    busy = max((report.host_busy for report in view.running), default=0.0)
    if busy:
        evidence.append(f"the processors of their hosts are {busy:.0%} busy")
    more, advice, command = _for_processors(facts, busy)
    evidence += more
    return words.make_diagnosis(
        facts,
        "processor",
        f"{'; '.join(evidence)}; {words.use_text(facts)}",
        advice,
        confidence=0.9,
        evidence=tuple(evidence),
        command=command,
    )


def _for_processors(facts: PoolFacts, busy: float) -> tuple[list[str], str, str]:
    """Return more evidence of slots that compute, the advice, and the command for it."""
    running, shared = facts.view.running, facts.share_of("interpreter")
    cores = sum({report.host: report.cores for report in running}.values())
    threads = any(report.executor == "threads" for report in running)
    if threads and shared >= processors.SHARED and busy < FULL_HOST and cores > len(running):
        advice = 'threads share one interpreter: set executor = "prefork", or add processes'
        return [f"{shared:.0%} is spent waiting for the interpreter"], advice, ""
    if max((report.throttled for report in running), default=0.0) >= processors.THROTTLED:
        advice = "raise the quota of their container; more slots would only share it"
        return ["the quota of their container holds them back"], advice, ""
    measured = facts.current_elasticity
    if measured is not None and measured.saturated:
        advice = "make the handlers faster, or add hosts: measured, more slots on these hosts bring no more"
        return [words.throughput_text(measured)], advice, ""
    if facts.has_room and busy < FULL_HOST:
        free = f"the slots compute on {cores / facts.headroom:.1f} of {cores} processors"
        return [free], "there is room for more processes; measure what they bring", words.probe_command(facts)
    return [], "add workers on another host; more slots on these hosts would only wait longer", ""


def contended_lock(facts: PoolFacts) -> Diagnosis | None:
    """Slots wait for a lock."""
    lock_time = facts.largest_place("lock")
    if lock_time is None or lock_time[1] < MOST:
        return None
    place, share = lock_time
    name = place.name or "a lock of the process"
    inside = "" if place.name else " (more processes do not share it)"
    by = f", by {place.library}" if place.library and place.library not in name else ""
    advice = "hold the lock for a shorter time, or split it"
    if name.startswith(CONNECTION_POOL):
        advice = "make it larger if the dependency can bear it, or hold a connection for a shorter time"
        inside = " (each process has one)"
    return words.make_diagnosis(
        facts,
        "lock",
        f"{share:.0%} of the slots' time is spent waiting for {name}{by} at {place.line}; "
        f"{words.use_text(facts)}",
        f"{advice}; more slots would only wait longer{inside}",
        name=name,
        confidence=min(0.95, share + 0.2),
        evidence=(f"{share:.0%} of the slots' time is spent waiting for {name}",),
    )


def results_of_own_pool(facts: PoolFacts) -> Diagnosis | None:
    """Slots wait for results of other tasks and no run ends: nothing is left to run these tasks."""
    spent = facts.largest_place("peer")
    if spent is None or spent[0].name != RESULTS or spent[1] < MOST or facts.use < FULL:
        return None
    if not _nothing_ends(facts):
        return None
    waits = f"{spent[1]:.0%} of the slots' time is spent waiting for the results of other tasks"
    found = words.make_diagnosis(
        facts,
        "lock",
        f"{waits} at {spent[0].line}, and no run ends: tasks of this pool wait for tasks of this pool, and "
        f"no slot is left to run those; {words.use_text(facts)}; {words.ready_text(facts)}",
        "do not wait for a task inside a task: send the next step as the callback of a batch (then=), or "
        "give the kinds that are waited for a pool of their own; more slots would be taken in the same way",
        name=RESULTS,
        confidence=0.8,
        evidence=(waits,),
    )
    return replace(found, trend="")  # the rate of the last minute is of runs before these


def _nothing_ends(facts: PoolFacts) -> bool:
    """True if no run has ended for much longer than runs take, or for `SILENT_SECONDS`."""
    recent, minute, mean = facts.recent, facts.minute, facts.mean
    if recent.ended or not minute.seconds:
        return False
    if mean is None:
        return minute.seconds >= SILENT_SECONDS
    return recent.seconds * facts.view.slots >= MISSED_ENDS * mean


def slow_dependency(facts: PoolFacts) -> Diagnosis | None:
    """Runs take much longer than usual for their kinds, and wait for a peer."""
    slower, wait = facts.slowdown, facts.largest_place("peer", "child", "file", "sleep", "thread", "unknown")
    if slower is None or slower < SLOWER or wait is None or wait[1] < MOST:
        return None
    measured = facts.current_elasticity
    if measured is not None and measured.saturated:
        return None  # the rule for the elasticity is more precise: the dependency is saturated
    place, share = wait
    name = words.bottleneck_name(facts, share)
    against: tuple[str, ...] = ()
    more = "; more slots would hide the cause, not remove it"
    if measured is not None and measured.grows:
        against = (f"throughput still grows with slots ({words.elasticity_text(measured)})",)
    return words.make_diagnosis(
        facts,
        "dependency",
        f"runs take {slower:.1f} times their usual time, {share:.0%} of it waiting for {name}",
        f"check {name}{more}",
        name=place.name or place.library or place.line,
        confidence=0.85,
        evidence=(f"{slower:.1f} times the usual time of the same kinds",),
        against=against,
    )


def measured_elasticity(facts: PoolFacts) -> Diagnosis | None:
    """Return the diagnosis by the measured elasticity: too few workers, a saturated dependency, or unclear.

    Return None if the elasticity is not measured, if fewer slots than `FULL` are in use, or if there is no
    room for more slots.
    """
    measured = facts.current_elasticity
    if measured is None or facts.use < FULL:
        return None
    if measured.grows:
        return _too_few_workers(facts, measured)
    if measured.saturated:
        return _saturated_dependency(facts, measured)
    name, spent = words.main_wait(facts)
    why = f"{words.use_text(facts)}{spent}; {words.throughput_text(measured)}: it is not yet certain whether "
    why += f"throughput grows with slots ({words.elasticity_text(measured)})"
    return words.make_diagnosis(
        facts,
        "unclear",
        why,
        "measure it again",
        name=name,
        confidence=0.4,
        command=words.probe_command(facts),
    )


def _too_few_workers(facts: PoolFacts, measured: Elasticity) -> Diagnosis | None:
    """Return the diagnosis that more slots help, with their number.

    Return None if the hosts' processors or a queue's limit leave no room for them.
    """
    slots, mean, most = facts.view.slots, facts.mean or 0.0, facts.headroom
    if most < NO_ROOM:
        return None  # the processors would be full
    wanted = numbers.slots_wanted(slots, in_rate=facts.in_rate, service_seconds=mean)
    wanted, capped = _under_limits(facts, wanted)
    if wanted <= slots:
        return None
    rate = numbers.predicted_rate(measured, wanted, max_growth=most)
    now = numbers.rate_now(measured) if measured.slots == slots else facts.rate
    clear = numbers.clear_seconds(facts.ready, rate=rate, in_rate=facts.in_rate)
    gain = f"{wanted} slots would bring {rate:,.1f} tasks a second (now {now:,.1f})"
    gain += f" and clear the backlog in {words.duration(clear)}" if clear is not None else ""
    setting = f"concurrency = {math.ceil(wanted / max(1, len(facts.view.running)))}"
    if measured.slots != slots:  # it was measured with more processes: slots of one may share an interpreter
        setting = f"processes = {math.ceil(len(facts.view.running) * wanted / slots)}"
    grown = (
        f"{words.throughput_text(measured)}: throughput grows with slots ({words.elasticity_text(measured)})"
    )
    hog = _dominant_kind(facts)
    full = f"the processors of the hosts are full at {most:.1f} times the rate"
    against = (*((full,) if most < processors.ROOM else ()), *capped)
    return words.make_diagnosis(
        facts,
        "workers",
        f"{grown}; {words.use_text(facts)}; {words.ready_text(facts)}{hog and '; ' + hog}",
        f"{gain}: set {setting} under [pools.{facts.view.name}] in millpond.toml",
        confidence=min(0.95, 0.6 + measured.low / 3),
        evidence=(words.throughput_text(measured), *((hog,) if hog else ())),
        against=against,
        slots_wanted=wanted,
        predicted_rate=rate,
        clear_seconds=clear,
    )


def _under_limits(facts: PoolFacts, wanted: int) -> tuple[int, tuple[str, ...]]:
    """Return the wanted slots, or the in-flight limit of the only waiting queue if that is lower.

    The second value is the evidence for the limit. It is empty if no limit applies.
    """
    limits = facts.waiting[0].limits if len(facts.waiting) == 1 else None
    if limits is None or not limits.in_flight or limits.in_flight >= wanted:
        return wanted, ()
    queue = facts.waiting[0].name
    return limits.in_flight, (f"queue {queue} is limited to {limits.in_flight} tasks at once",)


def _dominant_kind(facts: PoolFacts) -> str:
    """Return the advice about a kind that takes most of the slots' time with few of the runs.

    It is empty if there is no such kind.
    """
    window = facts.newest
    for kind, figures in window.kinds.items():
        time, runs = facts.part_of(kind), figures.ended / max(1, window.ended)
        if time >= MOST and runs <= time / 3:
            return (
                f"{kind} takes {time:.0%} of the slots' time with {runs:.0%} of the runs: a pool of its own?"
            )
    return ""


def _saturated_dependency(facts: PoolFacts, measured: Elasticity) -> Diagnosis:
    """Return the diagnosis that a dependency is saturated, with the slots that suffice."""
    usual = _usual_mean(facts)
    enough = numbers.slots_that_suffice(measured, usual_seconds=usual)
    name, named, evidence = _saturated_by(facts)
    queue = facts.waiting[0].name if facts.waiting else ""
    return words.make_diagnosis(
        facts,
        "dependency",
        f"{named} is saturated: {words.throughput_text(measured)}, so throughput does not grow with slots "
        f"({words.elasticity_text(measured)}); {words.use_text(facts)}",
        f"{words.slots_suffice_text(enough)}, more would only wait; "
        f"make {named} faster, or call it less often",
        name=name,
        confidence=0.9 if name else 0.7,
        evidence=(words.throughput_text(measured), *evidence),
        slots_wanted=enough,
        predicted_rate=measured.rate,
        command=f"millpond queue set {queue} --in-flight {enough}" if queue else "",
    )


def _saturated_by(facts: PoolFacts) -> tuple[str, str, tuple[str, ...]]:
    """Return the dependency that slots wait for, its name with library and line, and the evidence.

    Handlers whose requests are refused sleep until the next request: the diagnosis names their peer then.
    """
    wait = facts.largest_place("peer", "child", "file", "lock", "thread")
    if wait is None or wait[1] < NAMED:
        wait = facts.largest_place("sleep")
    if wait is None or wait[1] < NAMED:
        return "", "the dependency", ()
    place, share = wait
    asked = facts.largest_place("peer") if place.category == "sleep" else None
    sleeps = f"{share:.0%} of the slots' time is spent asleep at {place.line}"
    if asked is not None:
        return asked[0].name, f"{asked[0].name} (asked at {asked[0].line})", (sleeps,)
    if place.category == "sleep":
        return place.line, f"the dependency for which handlers sleep at {place.line}", (sleeps,)
    named = words.bottleneck_name(facts, share)
    spent = f"{share:.0%} of the slots' time is spent waiting for {named}"
    return place.name or place.library or place.line, named, (spent,)


def busy_loop(facts: PoolFacts) -> Diagnosis | None:
    """Slots wait for messages because the processes are busy with fetching and decoding them."""
    mean, running = facts.mean, facts.view.running
    busy = min((report.loop_busy for report in running), default=0.0)
    if mean is None or mean < SHORT_SECONDS or facts.is_probed:
        return None
    if facts.use >= LATE_USE or busy < BUSY_LOOP:
        return None
    fetching = f"its processes fetch, decode and settle messages {busy:.0%} of the time, one processor each"
    return words.make_diagnosis(
        facts,
        "processor",
        f"{fetching}: slots wait for messages {1 - facts.use:.0%} of the time although "
        f"{words.ready_text(facts)}",
        "send smaller messages, with the key or the path of large contents, or add processes: more slots of "
        "these processes would only wait",
        confidence=0.8,
        evidence=(fetching,),
    )


def late_broker(facts: PoolFacts) -> Diagnosis | None:
    """Slots wait for messages because the broker's replies are late."""
    answer, mean = facts.broker_seconds, facts.mean
    if mean is None or facts.is_probed or facts.use >= LATE_USE or answer < max(LATE_SECONDS, mean / 2):
        return None
    return words.make_diagnosis(
        facts,
        "broker",
        f"the broker answers in {words.duration(answer)} and a task takes {words.duration(mean)}: slots wait "
        f"for messages {1 - facts.use:.0%} of the time although {words.ready_text(facts)}",
        "raise prefetch, put the broker nearer, or find out what keeps it busy",
        confidence=0.85,
        evidence=(f"the broker answers in {words.duration(answer)}",),
        command="millpond doctor",
    )


def recycled_children(facts: PoolFacts) -> Diagnosis | None:
    """Slots are empty while their child processes are replaced."""
    children = facts.newest.children
    if facts.is_probed or facts.use >= LATE_USE or children < max(ENOUGH / 2, facts.newest.ended / OFTEN):
        return None
    tasks = facts.newest.ended / children
    why = f"a child is replaced after {tasks:.1f} tasks; "
    why += f"{words.use_text(facts)} although {words.ready_text(facts)}"
    return words.make_diagnosis(
        facts,
        "recycling",
        why,
        f"raise max_tasks_per_child or max_memory_per_child_mb under [pools.{facts.view.name}]",
        confidence=0.85,
        evidence=(f"{children} children were started for {facts.newest.ended} tasks",),
    )


def _usual_mean(facts: PoolFacts) -> float | None:
    """Return the usual mean service time of the present mixture of kinds, seconds."""
    window = facts.minute
    means = [
        (figures.ended, facts.usual[kind]) for kind, figures in window.kinds.items() if kind in facts.usual
    ]
    count = sum(ended for ended, _ in means)
    mean, now = (sum(ended * usual for ended, usual in means) / count if count else None), facts.mean
    return mean if mean is not None and now is not None and mean < now / SLOWER else None
