"""Decide why a pool is slow. The first rule that holds decides; the order is that of what can be known.

facts        no worker, processes missing, paused, drained, a limit that is reached
calm         idle, keeps up, catching up, bursts
too little   under 30 ends or 10 seconds: nothing is said of causes
failing      most runs fail or are retried: no slots would help
batching     tasks are so short that handing them out costs more than running them
processor    slots compute, wait for a processor, or for the interpreter
lock         slots wait for a lock, by name
dependency   runs take much longer than those of their kinds did, and wait for a peer
elasticity   measured: throughput grows with slots (workers), or it does not (dependency, lock)
unclear      it is not known, and how to find out
"""

from collections.abc import Callable

from millpond.monitor.diagnosis import causes, numbers, words
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import PoolFacts
from millpond.monitor.snapshot import QueueView

#: What waits is a backlog when it would take longer than this to clear, seconds.
MOMENT_SECONDS = 1.0
#: A backlog that is gone within this is no matter, seconds.
SOON_SECONDS = 10.0
#: Causes are looked for after so many ends and so many seconds.
ENOUGH_ENDS, ENOUGH_SECONDS = 30, 10.0
#: The share of a limit at which it is reached.
REACHED = 0.85

Rule = Callable[[PoolFacts], Diagnosis | None]


def diagnose(facts: PoolFacts) -> Diagnosis:
    """Return the verdict on one pool."""
    for rule in RULES:
        if (found := rule(facts)) is not None:
            return found
    return causes.unclear(facts)


# Facts


def _no_worker(facts: PoolFacts) -> Diagnosis | None:
    if not facts.waiting or facts.view.running:
        return None
    return words.said(
        facts,
        "no worker",
        f"{facts.ready:,} tasks wait and no process of the pool is there",
        "start it",
        command=f"millpond worker {facts.view.name}",
    )


def _missing(facts: PoolFacts) -> Diagnosis | None:
    view = facts.view
    if not facts.waiting or not view.processes_missing or view.pool is None:
        return None
    why = f"{view.processes_missing} of {view.pool.processes} processes are missing; {words.waiting(facts)}"
    return words.said(
        facts, "processes missing", why, "look at its log", command=f"millpond health {view.name}"
    )


def _paused(facts: PoolFacts) -> Diagnosis | None:
    queue = next((queue for queue in facts.waiting if queue.limits.paused), None)
    if queue is None:
        return None
    return words.said(
        facts,
        "paused",
        f"queue {queue.name} is paused and holds {queue.depth.ready:,} tasks",
        "let it go on",
        name=queue.name,
        command=f"millpond queue resume {queue.name}",
    )


def _drained(facts: PoolFacts) -> Diagnosis | None:
    if facts.view.drained_at_ms is None or not facts.waiting:
        return None
    why = f"the pool was drained and starts nothing; {words.waiting(facts)}"
    return words.said(facts, "drained", why, "let it go on", command=f"millpond resume {facts.view.name}")


def _limited(facts: PoolFacts) -> Diagnosis | None:
    for queue in facts.waiting:
        if reached := _reached(queue, facts):
            held = facts.use < 0.95
            return words.said(
                facts,
                "limit",
                f"queue {queue.name} is held to {reached}, which is reached; {words.waiting(facts)}",
                "raise the limit if what it protects can bear more; more slots change nothing",
                name=queue.name,
                confidence=0.95 if held else 0.75,
                against=() if held else (f"{words.use(facts)}: without the limit the slots may be too few",),
                command=f"millpond queue show {queue.name}",
            )
    return None


def _reached(queue: QueueView, facts: PoolFacts) -> str | None:
    limits = queue.limits
    if limits.rate and (queue.out_rate or 0.0) >= REACHED * limits.rate:
        return f"{limits.rate:g} tasks a second"
    if limits.in_flight and queue.depth.in_flight >= limits.in_flight and limits.in_flight < facts.view.slots:
        return f"{limits.in_flight} tasks at once"
    return None


# Calm, or not known yet


def _calm(facts: PoolFacts) -> Diagnosis | None:
    rate = facts.rate
    if not facts.ready:
        if not facts.minute.ended and not facts.view.busy:
            return words.said(facts, "idle", "nothing waits and nothing ended in the last minute")
        return _bursts(facts) or words.said(facts, "keeps up", f"{words.use(facts)}; {words.rate(facts)}")
    if rate and facts.ready / rate <= MOMENT_SECONDS:
        return _bursts(facts) or words.said(facts, "keeps up", f"{words.use(facts)}; {words.rate(facts)}")
    clear = numbers.clear_seconds(facts.ready, rate=rate, in_rate=facts.in_rate) if rate else None
    if clear is not None and clear <= SOON_SECONDS and facts.in_rate < 0.9 * rate:
        return words.said(
            facts,
            "catching up",
            f"{words.waiting(facts)}, clear in {words.duration(clear)}; {words.rate(facts)}",
        )
    return None


def _bursts(facts: PoolFacts) -> Diagnosis | None:
    """Tell a pool that keeps up on average and lets tasks wait now and then."""
    worst, mean = facts.view.wait.quantile(0.99), facts.mean
    if worst is None or mean is None or facts.minute.ended < ENOUGH_ENDS:
        return None
    if worst < max(2.0, 10 * mean) or facts.use > 0.9:
        return None
    why = f"on average it keeps up ({words.use(facts)}); in bursts a task waits up to {words.duration(worst)}"
    return words.said(
        facts, "bursts", why, "twice the slots would halve that wait; else send more evenly", confidence=0.7
    )


def _too_little(facts: PoolFacts) -> Diagnosis | None:
    ends, seconds = facts.minute.ended, facts.minute.seconds
    if ends >= ENOUGH_ENDS and seconds >= ENOUGH_SECONDS:
        return None
    known = f"too little is known yet: {ends} ends in {words.duration(seconds)}"
    why = f"{words.waiting(facts)}; {known}; {words.use(facts)}"
    return words.said(facts, "unclear", why, "ask again in some seconds", confidence=0.2)


RULES: tuple[Rule, ...] = (
    _no_worker,
    _paused,
    _drained,
    _missing,
    _limited,
    _calm,
    _too_little,
    causes.failing,
    causes.batching,
    causes.processor,
    causes.lock,
    causes.slow_dependency,
    causes.free_slots,
    causes.elastic,
)
