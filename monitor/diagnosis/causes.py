"""The rules for causes of a backlog, from the time that slots spend and the figures of processes."""

from dataclasses import replace

from millpond.broker.stats import processors
from millpond.broker.stats.window import RESULTS
from millpond.monitor.diagnosis import words
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import MEAN_ENDS, PoolFacts
from millpond.monitor.diagnosis.shared_fields import make_diagnosis
from millpond.tasks.toml_names import table_header

#: Shares of runs that count as failing, of slot time as the cause, of slots as all in use.
FAILING, MOST, FULL = 0.5, 0.5, 0.5
#: The shares of slot time, and of the hosts' processors, from which a pool counts as computing.
COMPUTING, FULL_HOST = 0.6, 0.9
#: The name of a lock that is a pool of connections begins so.
CONNECTION_POOL = "the connection pool"
#: Runs are slow at this multiple of their usual time.
SLOWER = 2.0
#: No run ends any more if none has for these seconds, or if at least so many should have ended.
SILENT_SECONDS, MISSED_ENDS = 20.0, 5
#: A process whose main thread computes for this share of the time fetches as fast as it can.
BUSY_LOOP = 0.7
#: Below this mean service time, fetching a task costs more than running it, seconds.
SHORT_SECONDS = 0.002
#: Below this use, slots wait for messages.
LATE_USE = 0.7
#: The broker's replies are late from this time on, seconds.
LATE_SECONDS = 0.01
#: Children are replaced often if each runs fewer tasks than this.
FEW_TASKS_PER_CHILD = 20


def diagnose_failing_runs(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `failing`: most runs fail or are retried, so more slots would fail faster."""
    window = facts.newest_window
    failures = {kind: figures.failed + figures.retried for kind, figures in window.kinds.items()}
    if not window.ended or sum(failures.values()) < FAILING * window.ended:
        return None
    kind = max(failures, key=lambda kind: failures[kind])
    figures = window.kinds[kind]
    error = figures.errors.most_common(1)
    error_text = f", most with {error[0][0]}" if error else ""
    verb = "are retried" if figures.retried > figures.failed else "fail"
    share = failures[kind] / max(1, figures.ended)
    queue = max(facts.view.queues, key=lambda queue: queue.depth.dead)
    return make_diagnosis(
        facts,
        "failing",
        f"{share:.0%} of the runs of {kind} {verb}{error_text}; {words.ready_text(facts)}",
        "find out why they fail; more slots would only fail faster",
        name=kind,
        confidence=0.95,
        command=f"millpond dead list {queue.name}"
        if figures.failed
        else f"millpond queue show {facts.waiting_queues[0].name}",
    )


def diagnose_busy_processors(
    facts: PoolFacts, *, least: float = COMPUTING, least_if_full: float = MOST
) -> Diagnosis | None:
    """Diagnose `processor`: slots compute, or wait for a processor or for the interpreter.

    This takes at least the share `least` of the slots' time, or `least_if_full` if the processors of the
    hosts are full.
    """
    running, measured = facts.view.running, facts.current_elasticity
    computing = facts.category_time_share("processor", "runnable", "interpreter")
    full = bool(running) and min(process.host_busy for process in running) >= FULL_HOST
    if computing < least and not (full and computing >= least_if_full):
        return None
    if measured is not None and measured.grows and facts.has_free_processors:
        return None  # by the measurement more slots bring more
    evidence = [f"{computing:.0%} of the slots' time is spent computing or waiting for a processor"]
    host_busy = max((process.host_busy for process in running), default=0.0)
    if host_busy:
        evidence.append(f"the processors of their hosts are {host_busy:.0%} busy")
    further_evidence, advice, command = _processor_advice(facts, host_busy)
    evidence += further_evidence
    return make_diagnosis(
        facts,
        "processor",
        f"{'; '.join(evidence)}; {words.in_use_text(facts)}",
        advice,
        confidence=0.9,
        evidence=tuple(evidence),
        command=command,
    )


def _processor_advice(facts: PoolFacts, host_busy: float) -> tuple[list[str], str, str]:
    """Return further evidence about slots that compute, the advice, and the command to type."""
    running, shared = facts.view.running, facts.category_time_share("interpreter")
    cores = sum({process.host: process.cores for process in running}.values())
    has_threads = any(process.executor == "threads" for process in running)
    if has_threads and shared >= processors.SHARED and host_busy < FULL_HOST and cores > len(running):
        advice = 'threads share one interpreter: set executor = "prefork", or add processes'
        return [f"{shared:.0%} is spent waiting for the interpreter"], advice, ""
    if max((process.throttled for process in running), default=0.0) >= processors.THROTTLED:
        advice = "raise the quota of their container; more slots would only share it"
        return ["the quota of their container holds them back"], advice, ""
    measured = facts.current_elasticity
    if measured is not None and measured.saturated:
        advice = "make the handlers faster, or add hosts: measured, more slots on these hosts bring no more"
        return [words.throughput_text(measured)], advice, ""
    if facts.has_free_processors and host_busy < FULL_HOST:
        evidence = f"the slots compute on {cores / facts.headroom:.1f} of {cores} processors"
        return (
            [evidence],
            "there is room for more processes; measure what they bring",
            words.probe_command(facts),
        )
    return [], "add workers on another host; more slots on these hosts would only wait longer", ""


def diagnose_contended_lock(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `lock`: slots wait for a lock."""
    lock_time = facts.largest_place("lock")
    if lock_time is None or lock_time[1] < MOST:
        return None
    place, share = lock_time
    name = place.name or "a lock of the process"
    reach = "" if place.name else " (more processes do not share it)"
    library = f", by {place.library}" if place.library and place.library not in name else ""
    advice = "hold the lock for a shorter time, or split it"
    if name.startswith(CONNECTION_POOL):
        advice = "make it larger if the dependency can bear it, or hold a connection for a shorter time"
        reach = " (each process has one)"
    return make_diagnosis(
        facts,
        "lock",
        f"{share:.0%} of the slots' time is spent waiting for {name}{library} at {place.line}; "
        f"{words.in_use_text(facts)}",
        f"{advice}; more slots would only wait longer{reach}",
        name=name,
        confidence=min(0.95, share + 0.2),
        evidence=(f"{share:.0%} of the slots' time is spent waiting for {name}",),
    )


def diagnose_results_of_own_pool(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `lock`: slots wait for results of other tasks, no run ends, and no slot is left for those."""
    spent = facts.largest_place("peer")
    if spent is None or spent[0].name != RESULTS or spent[1] < MOST or facts.use < FULL:
        return None
    if not _nothing_ends(facts):
        return None
    waits = f"{spent[1]:.0%} of the slots' time is spent waiting for the results of other tasks"
    found = make_diagnosis(
        facts,
        "lock",
        f"{waits} at {spent[0].line}, and no run ends: tasks of this pool wait for tasks of this pool, and "
        f"no slot is left to run those; {words.in_use_text(facts)}; {words.ready_text(facts)}",
        "do not wait for a task inside a task: send the next step as the callback of a batch (then=), or "
        "give the kinds that are waited for a pool of their own; more slots would be taken in the same way",
        name=RESULTS,
        confidence=0.8,
        evidence=(waits,),
    )
    return replace(found, trend="")  # the rate of the last minute is of runs before these


def _nothing_ends(facts: PoolFacts) -> bool:
    """True if no run has ended for much longer than a run takes (if unknown: for `SILENT_SECONDS`)."""
    recent, minute, mean = facts.recent, facts.minute, facts.mean_service_seconds
    if recent.ended or not minute.seconds:
        return False
    if mean is None:
        return minute.seconds >= SILENT_SECONDS
    return recent.seconds * facts.view.slots >= MISSED_ENDS * mean


def diagnose_slow_dependency(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `dependency`: runs take much longer than usual for their kinds, and wait for a peer."""
    slowdown = facts.slowdown
    largest = facts.largest_place("peer", "child", "file", "sleep", "thread", "unknown")
    if slowdown is None or slowdown < SLOWER or largest is None or largest[1] < MOST:
        return None
    measured = facts.current_elasticity
    if measured is not None and measured.saturated:
        return None  # the rule for the elasticity is more precise: the dependency is saturated
    place, share = largest
    name = words.place_text(place)
    against: tuple[str, ...] = ()
    if measured is not None and measured.grows:
        against = (f"throughput still grows with slots ({words.elasticity_text(measured)})",)
    return make_diagnosis(
        facts,
        "dependency",
        f"runs take {slowdown:.1f} times their usual time, {share:.0%} of it waiting for {name}",
        f"check {name}; more slots would hide the cause, not remove it",
        name=place.name or place.library or place.line,
        confidence=0.85,
        evidence=(f"{slowdown:.1f} times the usual time of the same kinds",),
        against=against,
    )


def diagnose_busy_loop(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `processor`: slots wait for messages because their processes are busy fetching them."""
    mean, running = facts.mean_service_seconds, facts.view.running
    busy = min((process.loop_busy for process in running), default=0.0)
    if mean is None or mean < SHORT_SECONDS or facts.is_probed:
        return None
    if facts.use >= LATE_USE or busy < BUSY_LOOP:
        return None
    fetching = f"its processes fetch, decode and settle messages {busy:.0%} of the time, one processor each"
    return make_diagnosis(
        facts,
        "processor",
        f"{fetching}: slots wait for messages {1 - facts.use:.0%} of the time although "
        f"{words.ready_text(facts)}",
        "send smaller messages, with the key or the path of large contents, or add processes: more slots of "
        "these processes would only wait",
        confidence=0.8,
        evidence=(fetching,),
    )


def diagnose_late_broker(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `broker`: slots wait for messages because the broker's replies are late."""
    reply_seconds, mean = facts.broker_seconds, facts.mean_service_seconds
    if mean is None or facts.is_probed or facts.use >= LATE_USE:
        return None
    if reply_seconds < max(LATE_SECONDS, mean / 2):
        return None
    evidence = f"the broker answers in {words.duration_text(reply_seconds)}"
    return make_diagnosis(
        facts,
        "broker",
        f"{evidence} and a task takes {words.duration_text(mean)}: slots wait for messages "
        f"{1 - facts.use:.0%} of the time although {words.ready_text(facts)}",
        "raise prefetch, put the broker nearer, or find out what keeps it busy",
        confidence=0.85,
        evidence=(evidence,),
        command="millpond doctor",
    )


def diagnose_recycled_children(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `recycling`: slots are empty while their child processes are replaced."""
    children, ended = facts.newest_window.children, facts.newest_window.ended
    if facts.is_probed or facts.use >= LATE_USE or children < max(MEAN_ENDS / 2, ended / FEW_TASKS_PER_CHILD):
        return None
    return make_diagnosis(
        facts,
        "recycling",
        f"a child is replaced after {ended / children:.1f} tasks; {words.in_use_text(facts)} although "
        f"{words.ready_text(facts)}",
        "raise max_tasks_per_child or max_memory_per_child_mb under "
        f"{table_header('pools', facts.view.name)}",
        confidence=0.85,
        evidence=(f"{children} children were started for {ended} tasks",),
    )
