"""Judge the health of a service on this host by the heartbeats of its processes: three questions.

    live     the loop turns, or the process is shutting down. Not live: kill it, because nothing else helps
    ready    live, the broker replies, the leases hold, and all processes are there
    working  ready, and messages were fetched or settled lately if any were fetchable

A worker without a reachable broker is not ready, and still live.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.tasks.process.heartbeat_file import ProcessState, boot_clock

#: How long a loop may be blocked, and how old the last reply of the broker may be.
LIVE_SECONDS = 30.0
READY_SECONDS = 15.0

QUESTIONS = ("live", "ready", "working")


@dataclass(frozen=True)
class Health:
    """The faults of each check, one line each. A check without faults has passed."""

    live: tuple[str, ...]
    ready: tuple[str, ...]
    working: tuple[str, ...]
    processes: tuple[str, ...] = ()

    def faults(self, question: str) -> tuple[str, ...]:
        """Return the faults for one of `QUESTIONS`, and for the questions before it."""
        questions = QUESTIONS[: QUESTIONS.index(question) + 1]
        return tuple(fault for each in questions for fault in getattr(self, each))


def judge_health(
    heartbeats: Sequence[ProcessState], *, within_seconds: float | None = None, service: str | None = None
) -> Health:
    """Return the health of processes. `within_seconds` replaces every time limit, `service` names theirs."""
    if not heartbeats:
        return Health((f"no process of {service or 'it'} runs here",), (), ())
    at = boot_clock()
    live = (_liveness_fault(each, at, within_seconds or LIVE_SECONDS) for each in heartbeats)
    ready = [_readiness_fault(each, at, within_seconds or READY_SECONDS) for each in heartbeats]
    working = (_progress_fault(each, at, within_seconds) for each in heartbeats)
    for service in sorted({each.service for each in heartbeats}):
        present = [each for each in heartbeats if each.service == service]
        if len(present) < present[0].expected:
            ready.append(f"{service}: {len(present)} of {present[0].expected} processes are there")
    return Health(
        tuple(filter(None, live)),
        tuple(filter(None, ready)),
        tuple(filter(None, working)),
        tuple(each.name for each in heartbeats),
    )


def _liveness_fault(heartbeat: ProcessState, at: float, limit: float) -> str | None:
    """Return the fault of a process that is frozen or whose loop is blocked. Return None if it is live."""
    if at - heartbeat.written_at > limit:
        return f"{heartbeat.name} is frozen: its last heartbeat is {at - heartbeat.written_at:.0f} s old"
    if not heartbeat.draining and at - heartbeat.loop_at > limit:
        return f"{heartbeat.name}: its loop has stood still for {at - heartbeat.loop_at:.0f} s"
    return None


def _readiness_fault(heartbeat: ProcessState, at: float, limit: float) -> str | None:
    """Return why a process is not ready: it stops, or misses the broker or its lease.

    Return None if it is ready.
    """
    if heartbeat.draining:
        return f"{heartbeat.name} is stopping"
    if heartbeat.broker_answered_at is None or at - heartbeat.broker_answered_at > limit:
        return f"{heartbeat.name}: the broker does not answer"
    if not heartbeat.has_lease:
        return f"{heartbeat.name} has no lease: refused by the broker, or just started"
    return None


def _progress_fault(heartbeat: ProcessState, at: float, limit: float | None) -> str | None:
    """Return why a process does not work: messages wait and none was fetched or settled.

    Return None if it works.
    """
    if heartbeat.stalled_since is None or heartbeat.draining:
        return None
    stalled = at - heartbeat.stalled_since
    if stalled <= (heartbeat.stall_limit_seconds if limit is None else limit):
        return None
    return f"{heartbeat.name} fetched and settled nothing for {stalled:.0f} s, and its queues are not empty"
