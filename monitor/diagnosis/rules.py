"""The rules, in their order. The first one that applies is the diagnosis.

facts        no worker, paused, drained, processes missing, a limit reached
calm         idle, keeps up, catching up, bursts, skew
too little   fewer than 30 ends or 10 seconds: too little data, or runs too long to measure
failing      most runs fail or are retried: more slots would not help
lock         slots wait for results of tasks of their own pool, and no run ends
recycling    slots are empty while their child processes are replaced
processor    slots wait for messages, because their processes are busy with fetching and decoding them
broker       slots wait for messages, because the broker's replies are late
batching     fetching tasks costs more than running them
dependency   runs take much longer than usual for their kinds, and wait
batching     a run calls a peer many times, or a call costs much whatever its size
processor    slots compute, or wait for a processor or the interpreter
lock         slots wait for a lock, named
elasticity   measured: throughput grows with slots (workers), or it does not (dependency, lock)
unclear      the cause is not known, and the advice is how to find it
"""

from collections.abc import Callable

from millpond.monitor.diagnosis import batching, causes, growth, numbers, unknown, words
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import ENOUGH_ENDS, PoolFacts
from millpond.monitor.diagnosis.shared_fields import make_diagnosis
from millpond.monitor.snapshot import QueueView
from millpond.tasks.toml_names import table_header

#: Ready tasks are a backlog if clearing them takes longer than this, seconds.
MOMENT_SECONDS = 1.0
#: A backlog that is cleared within the first time needs no action, seconds. The second time is for a pool at
#: which tasks arrive all the while: it is faster than they arrive.
SOON_SECONDS, STREAM_SOON_SECONDS = 10.0, 120.0
#: A cause needs enough ends and the first of these times, or samples of slots over the second, seconds.
ENOUGH_SECONDS, LONG_SECONDS = 10.0, 30.0
#: The share of a limit that counts as reached.
REACHED = 0.85

Rule = Callable[[PoolFacts], Diagnosis | None]


def diagnose(facts: PoolFacts) -> Diagnosis:
    """Return the diagnosis of one pool: that of the first rule that applies, else `unclear`."""
    for rule in RULES:
        if (diagnosis := rule(facts)) is not None:
            return diagnosis
    return unknown.diagnose_unclear_cause(facts)


# Facts


def _diagnose_no_worker(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `no worker`: no process of the pool runs, and tasks are ready."""
    if not facts.waiting_queues or facts.view.running:
        return None
    return make_diagnosis(
        facts,
        "no worker",
        f"{words.ready_text(facts)} and no process of the pool runs",
        "start a worker",
        command=f"millpond worker {facts.view.name}",
    )


def _diagnose_missing_processes(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `processes missing`: fewer processes run than the pools table has, and tasks are ready."""
    view = facts.view
    if not facts.waiting_queues or not view.processes_missing or view.pool is None:
        return None
    why = (
        f"{view.processes_missing} of {view.pool.processes} processes are missing; {words.ready_text(facts)}"
    )
    return make_diagnosis(
        facts,
        "processes missing",
        why,
        "check its processes and their log",
        command=f"millpond health {view.name}",
    )


def _diagnose_paused_queue(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `paused`: a queue with ready tasks is paused, and no other queue of the pool is behind."""
    queue = next((queue for queue in facts.waiting_queues if queue.limits.paused), None)
    if queue is None or _has_other_backlog(facts, queue):
        return None
    return make_diagnosis(
        facts,
        "paused",
        f"queue {queue.name} is paused and has {queue.depth.ready:,} ready tasks",
        "resume it",
        name=queue.name,
        command=f"millpond queue resume {queue.name}",
    )


def _has_other_backlog(facts: PoolFacts, limited: QueueView) -> bool:
    """True if the slots are full, and other queues of the pool are behind although nothing limits them."""
    others = [
        queue
        for queue in facts.waiting_queues
        if queue is not limited and not queue.limits.paused and not _reached_limit_text(queue, facts)
    ]
    ready = sum(queue.depth.ready for queue in others)
    return facts.use >= causes.FULL and ready > max(facts.view.slots, facts.rate * SOON_SECONDS)


def _diagnose_drained_pool(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `drained`: the pool is drained, and tasks are ready."""
    if facts.view.drained_at_ms is None or not facts.waiting_queues:
        return None
    why = f"the pool is drained and starts nothing; {words.ready_text(facts)}"
    return make_diagnosis(facts, "drained", why, "resume it", command=f"millpond resume {facts.view.name}")


def _diagnose_queue_limit(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `limit`: a queue has reached a limit of its own, and no other queue of the pool is behind."""
    for queue in facts.waiting_queues:
        if (reached := _reached_limit_text(queue, facts)) and not _has_other_backlog(facts, queue):
            alone = facts.use < 0.95
            doubt = f"{words.in_use_text(facts)}: without the limit, the slots may be too few"
            return make_diagnosis(
                facts,
                "limit",
                f"queue {queue.name} has reached its limit of {reached}; {words.ready_text(facts)}",
                "raise the limit if the dependency that it protects can bear it; more slots change nothing",
                name=queue.name,
                confidence=0.95 if alone else 0.75,
                against=() if alone else (doubt,),
                command=f"millpond queue show {queue.name}",
            )
    return None


def _reached_limit_text(queue: QueueView, facts: PoolFacts) -> str | None:
    """Return the rate limit or in-flight limit that a queue has reached, in words, or None."""
    limits = queue.limits
    if limits.rate and (queue.out_rate or 0.0) >= REACHED * limits.rate:
        return f"{limits.rate:g} tasks a second"
    if (
        limits.in_flight
        and queue.depth.in_flight >= limits.in_flight
        and limits.in_flight <= facts.view.slots
    ):
        return f"{limits.in_flight} tasks at once"
    return None


# Calm, or too little data


def _diagnose_without_backlog(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose a pool without a lasting backlog: `idle`, `keeps up`, `catching up`, `bursts` or `skew`."""
    if facts.ready > facts.rate * MOMENT_SECONDS:
        return _diagnose_catching_up(facts)
    if not facts.ready:
        if (diagnosis := _diagnose_skew(facts)) is not None:
            return diagnosis
        if not facts.minute.ended and not facts.view.busy:
            delayed = sum(queue.depth.delayed for queue in facts.view.queues)
            later = f"; {delayed:,} are delayed until their time" if delayed else ""
            return make_diagnosis(facts, "idle", f"no task is ready and none ended in the last minute{later}")
    return _diagnose_bursts(facts) or make_diagnosis(
        facts, "keeps up", f"{words.in_use_text(facts)}; {words.rate_text(facts)}"
    )


def _diagnose_catching_up(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `catching up`: the backlog will be cleared soon."""
    rate = facts.rate
    clear = numbers.clear_seconds(facts.ready, rate=rate, in_rate=facts.in_rate)
    if clear is None:
        return None
    arriving = facts.in_rate / rate
    soon = STREAM_SOON_SECONDS if arriving >= 0.1 else SOON_SECONDS
    if clear > soon or arriving >= 0.9:
        return None
    return make_diagnosis(
        facts,
        "catching up",
        f"{words.ready_text(facts)}, cleared in {words.duration_text(clear)}; {words.rate_text(facts)}",
    )


def _diagnose_bursts(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `bursts`: the pool keeps up on average, but in bursts tasks wait for long."""
    worst, mean = facts.view.wait.quantile(0.99), facts.mean_service_seconds
    if worst is None or mean is None or facts.minute.ended < ENOUGH_ENDS:
        return None
    if worst < max(2.0, 10 * mean) or facts.use > 0.9:
        return None
    return make_diagnosis(
        facts,
        "bursts",
        f"on average it keeps up ({words.in_use_text(facts)}); in bursts a task waits up to "
        f"{words.duration_text(worst)}",
        "twice the slots would halve that wait; or send tasks more evenly",
        confidence=0.7,
    )


def _diagnose_skew(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `skew`: tasks wait in a process that is full while another process has idle slots."""
    running, ended, mean = facts.view.running, facts.minute.ended, facts.mean_service_seconds
    full = [process for process in running if process.slots <= process.busy < process.in_flight]
    idle = [process for process in running if process.in_flight < process.slots and not process.draining]
    waited = sum(figures.wait_seconds for figures in facts.minute.kinds.values())
    if not full or not idle or not mean or ended < ENOUGH_ENDS / 3 or waited < mean * ended:
        return None
    fullest = max(full, key=lambda process: process.in_flight - process.busy)
    unstarted = fullest.in_flight - fullest.busy
    free_slots = sum(process.slots - process.in_flight for process in idle)
    if unstarted < 2 or free_slots < 2:
        return None
    return make_diagnosis(
        facts,
        "skew",
        f"{unstarted} tasks wait in process {fullest.name}, which is full; other processes have "
        f"{free_slots} free slots",
        f"set prefetch = 0 under {table_header('pools', facts.view.name)}: a process then fetches no more "
        "than it can start",
        name=fullest.name,
        confidence=0.8,
    )


def _diagnose_too_little_data(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `unclear`: too little was measured, or runs are too long to measure."""
    ends, seconds = facts.minute.ended, facts.minute.seconds
    if ends >= ENOUGH_ENDS and seconds >= ENOUGH_SECONDS:
        return None
    if seconds >= LONG_SECONDS and facts.use >= causes.FULL:
        return unknown.diagnose_long_runs(facts)
    sentence = f"too little data yet: {ends} ends in {words.duration_text(seconds)}"
    why = f"{words.ready_text(facts)}; {sentence}; {words.in_use_text(facts)}"
    return make_diagnosis(facts, "unclear", why, "ask again in a few seconds", confidence=0.2)


RULES: tuple[Rule, ...] = (
    _diagnose_no_worker,
    _diagnose_paused_queue,
    _diagnose_drained_pool,
    _diagnose_missing_processes,
    _diagnose_queue_limit,
    _diagnose_without_backlog,
    _diagnose_too_little_data,
    causes.diagnose_failing_runs,
    causes.diagnose_results_of_own_pool,
    causes.diagnose_recycled_children,
    causes.diagnose_busy_loop,
    causes.diagnose_late_broker,
    batching.diagnose_short_tasks,
    causes.diagnose_slow_dependency,
    batching.diagnose_chatty_runs,
    batching.diagnose_fixed_cost,
    causes.diagnose_busy_processors,
    causes.diagnose_contended_lock,
    unknown.diagnose_free_slots,
    growth.diagnose_by_elasticity,
)
