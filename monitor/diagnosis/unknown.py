"""Diagnose a backlog without a known cause: with the known facts, and how to find the cause."""

from millpond.monitor.diagnosis import causes, words
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.diagnosis.facts import ENOUGH_ENDS, PoolFacts
from millpond.monitor.diagnosis.shared_fields import make_diagnosis


def diagnose_free_slots(facts: PoolFacts) -> Diagnosis | None:
    """Diagnose `unclear`: slots are free although tasks are ready."""
    if facts.is_probed or facts.use >= causes.FULL:
        return None
    running = facts.view.running
    why = f"{words.ready_text(facts)} although only {words.in_use_text(facts)}"
    unstarted = sum(max(0, process.in_flight - process.busy) for process in running)
    if unstarted >= max(1, facts.view.slots / 2):
        busy = max(report.host_busy for report in running)
        why += f"; {unstarted} messages are in its processes and have not started"
        why += f"; the processors of its hosts are {busy:.0%} busy" if busy >= causes.FULL_HOST else ""
        advice = "look for a rate_limit of the task, for full processors, and for errors in the worker's log"
    else:
        why += ": slots wait for messages"
        advice = "check the latency of the broker and the health of the pool"
    return make_diagnosis(
        facts, "unclear", why, advice, confidence=0.4, command=f"millpond health {facts.view.name}"
    )


def diagnose_long_runs(facts: PoolFacts) -> Diagnosis:
    """Diagnose a pool whose runs are too long to measure the effect of slots.

    It is `unclear`, unless a cause shows in the slots' time or in failures.
    """
    if (cause := _diagnose_likely_cause(facts)) is not None:
        return cause
    window, mean = facts.minute, facts.mean_service_seconds
    takes = f"a run takes {words.duration_text(mean)}, {window.ended}" if mean else "no run"
    wait = words.duration_text(window.seconds * ENOUGH_ENDS / window.ended) if window.ended else "an hour"
    name, spent = words.main_wait(facts)
    return make_diagnosis(
        facts,
        "unclear",
        f"{words.in_use_text(facts)}{spent}; {takes} ended in {words.duration_text(window.seconds)}: too few "
        f"to measure whether more slots would help; {words.ready_text(facts)}",
        f"add one worker process, and compare how many end in {wait}",
        name=name,
        confidence=0.3,
        command=f"millpond worker {facts.view.name}",
    )


def diagnose_unclear_cause(facts: PoolFacts) -> Diagnosis:
    """Diagnose `unclear`: no rule applies. The command measures what more slots would bring."""
    name, spent = words.main_wait(facts)
    if facts.is_probed:
        advice = "it is being measured: ask again in half a minute"
        command = f"millpond why {facts.view.name}"
    else:
        advice = "measure it for half a minute, or a few minutes if runs are long"
        if facts.view.slots == 1:
            advice = "measure it with a second slot, where two tasks may run at once"
        command = words.probe_command(facts)
    return make_diagnosis(
        facts,
        "unclear",
        f"{words.in_use_text(facts)}{spent}; {words.ready_text(facts)}; "
        "it is not known whether more slots would help",
        advice,
        name=name,
        confidence=0.3,
        command=command,
    )


def _diagnose_likely_cause(facts: PoolFacts) -> Diagnosis | None:
    """Return the diagnosis of the first rule that applies without a measurement of slots, or None."""
    rules = (
        causes.diagnose_failing_runs,
        causes.diagnose_results_of_own_pool,
        causes.diagnose_busy_processors,
        causes.diagnose_contended_lock,
        causes.diagnose_slow_dependency,
    )
    return next((cause for rule in rules if (cause := rule(facts)) is not None), None)
