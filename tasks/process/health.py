"""Judge the health of a service on this host by the pulses of its processes: three questions, three answers.

    live     the loop turns, or the process ends in good order. Not: kill it, for nothing else will help
    ready    all of that, and the broker answers, the leases hold, and all processes are there
    working  all of that, and something was fetched or settled lately whenever something was there to fetch

A broker that is away makes a worker not ready; it does not make it dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.tasks.process.heartbeat_file import Pulse, now

#: How long a loop may stand still, and how old an answer of the broker may be.
LIVE_SECONDS = 30.0
READY_SECONDS = 15.0

QUESTIONS = ("live", "ready", "working")


@dataclass(frozen=True)
class Health:
    """Answer each question with what speaks against it, a line each; none: yes."""

    live: tuple[str, ...]
    ready: tuple[str, ...]
    working: tuple[str, ...]
    processes: tuple[str, ...] = ()

    def faults(self, question: str) -> tuple[str, ...]:
        """Return what speaks against one of `QUESTIONS`; a no to an earlier one is a no to it as well."""
        asked = QUESTIONS[: QUESTIONS.index(question) + 1]
        return tuple(fault for each in asked for fault in getattr(self, each))


def judge(pulses: Sequence[Pulse], *, within_seconds: float | None = None) -> Health:
    """Answer for the processes of a service; `within_seconds` replaces every patience."""
    if not pulses:
        return Health(("no process of it runs here",), (), ())
    at = now()
    ready = [fault for pulse in pulses if (fault := _not_ready(pulse, at, within_seconds or READY_SECONDS))]
    for service in sorted({pulse.service for pulse in pulses}):
        there = [pulse for pulse in pulses if pulse.service == service]
        if len(there) < there[0].of:
            ready.append(f"{service}: {len(there)} of {there[0].of} processes are there")
    return Health(
        tuple(fault for pulse in pulses if (fault := _not_live(pulse, at, within_seconds or LIVE_SECONDS))),
        tuple(ready),
        tuple(fault for pulse in pulses if (fault := _not_working(pulse, at, within_seconds))),
        tuple(pulse.name for pulse in pulses),
    )


def _not_live(pulse: Pulse, at: float, within: float) -> str | None:
    if at - pulse.said_at > within:
        return f"{pulse.name} is frozen: it has said nothing for {at - pulse.said_at:.0f} s"
    if not pulse.draining and at - pulse.turned_at > within:
        return f"{pulse.name}: its loop has stood still for {at - pulse.turned_at:.0f} s"
    return None


def _not_ready(pulse: Pulse, at: float, within: float) -> str | None:
    if pulse.draining:
        return f"{pulse.name} is stopping"
    if pulse.answered_at is None or at - pulse.answered_at > within:
        return f"{pulse.name}: the broker does not answer"
    return None if pulse.leased else f"{pulse.name} holds no lease: refused by the broker, or just started"


def _not_working(pulse: Pulse, at: float, within: float | None) -> str | None:
    if pulse.waiting_since is None or pulse.draining:
        return None
    waited = at - pulse.waiting_since
    if waited <= (pulse.patience_seconds if within is None else within):
        return None
    return f"{pulse.name} has fetched and settled nothing for {waited:.0f} s, and its queues hold something"
