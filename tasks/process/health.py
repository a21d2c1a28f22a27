"""Judge the health of a service on this host by the heartbeats of its processes. There are three checks:

    live     the event loop turns, or the process is shutting down. A process that is not live must be killed
    ready    live, the broker replies, the leases hold, and all expected processes run
    working  ready, and messages were fetched or settled lately, if any were fetchable

A worker whose broker is unreachable is live and not ready.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.tasks.process.heartbeat_file import ProcessState, boot_clock

#: The longest time that a loop may be blocked, and the greatest age of the broker's last reply, seconds.
LIVE_SECONDS = 30.0
READY_SECONDS = 15.0

#: The names of the checks. Each check includes those before it.
HEALTH_CHECKS = ("live", "ready", "working")


@dataclass(frozen=True)
class Health:
    """The faults of each check, one line each. A check without faults has passed."""

    live: tuple[str, ...]
    ready: tuple[str, ...]
    working: tuple[str, ...]
    processes: tuple[str, ...] = ()

    def faults(self, check: str) -> tuple[str, ...]:
        """Return the faults of one of the `HEALTH_CHECKS` and of those before it."""
        checks = HEALTH_CHECKS[: HEALTH_CHECKS.index(check) + 1]
        return tuple(fault for name in checks for fault in getattr(self, name))


def judge_health(
    heartbeats: Sequence[ProcessState], *, within_seconds: float | None = None, service: str | None = None
) -> Health:
    """Return the health of the processes with these heartbeats.

    `within_seconds` replaces every time limit. `service` is the name to show if there are no heartbeats.
    """
    if not heartbeats:
        return Health((f"no process of {service or 'Millpond'} runs here",), (), ())
    now = boot_clock()
    live_limit, ready_limit = LIVE_SECONDS, READY_SECONDS
    if within_seconds is not None:
        live_limit = ready_limit = within_seconds
    live = (_liveness_fault(process, now, live_limit) for process in heartbeats)
    ready = [_readiness_fault(process, now, ready_limit) for process in heartbeats]
    working = (_progress_fault(process, now, within_seconds) for process in heartbeats)
    for name in sorted({process.service for process in heartbeats}):
        present = [process for process in heartbeats if process.service == name]
        if len(present) < present[0].expected:
            ready.append(f"{name}: {len(present)} of {present[0].expected} processes are there")
    return Health(
        tuple(filter(None, live)),
        tuple(filter(None, ready)),
        tuple(filter(None, working)),
        tuple(process.name for process in heartbeats),
    )


def _liveness_fault(process: ProcessState, now: float, limit_seconds: float) -> str | None:
    """Return the fault of a process that is frozen or whose loop is blocked. Return None if it is live."""
    if now - process.written_at > limit_seconds:
        return f"{process.name} is frozen: its last heartbeat is {now - process.written_at:.0f} s old"
    if not process.draining and now - process.loop_at > limit_seconds:
        return f"{process.name}: its loop has stood still for {now - process.loop_at:.0f} s"
    return None


def _readiness_fault(process: ProcessState, now: float, limit_seconds: float) -> str | None:
    """Return why a process is not ready: it is draining, or has no reply of the broker or no lease.

    Return None if it is ready.
    """
    if process.draining:
        return f"{process.name} is stopping"
    if process.broker_answered_at is None:
        return f"{process.name} has just started, and has asked its broker nothing yet"
    if now - process.broker_answered_at > limit_seconds:
        return f"{process.name}: the broker does not answer"
    if not process.has_lease:
        return f"{process.name} has no lease: refused by the broker, or just started"
    return None


def _progress_fault(process: ProcessState, now: float, limit_seconds: float | None) -> str | None:
    """Return why a process does not work: messages are fetchable, and none was fetched or settled.

    The default of the limit is the process's own `stall_limit_seconds`. Return None if it works or drains.
    """
    if process.stalled_since is None or process.draining:
        return None
    stalled = now - process.stalled_since
    if stalled <= (process.stall_limit_seconds if limit_seconds is None else limit_seconds):
        return None
    return f"{process.name} fetched and settled nothing for {stalled:.0f} s, and its queues are not empty"
