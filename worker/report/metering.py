"""Built-in middleware that meters tasks: how they ended, how long they waited and how long they ran.

A task costs one append when it ends. The heartbeat's thread counts the appended entries once a second.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from celery.worker.state import active_requests

from millpond.broker.delivery import Delivery
from millpond.broker.outcomes import (
    Cancelled,
    Continued,
    DeadLetter,
    Outcome,
    Redeliver,
    Requeue,
    Retry,
    Succeeded,
)
from millpond.broker.stats.histogram import NAMES, bucket_of
from millpond.broker.task_state import TaskState
from millpond.tasks.middleware import Middleware

#: The maximum of ends that are kept while the broker is unreachable. Further ends are not measured.
KEPT = 500_000

_MICROS = 1_000_000

#: The state in which a run is counted, by its outcome. An outcome that is not here is no run.
_STATES: dict[type[Any], TaskState] = {
    Succeeded: TaskState.SUCCEEDED,
    DeadLetter: TaskState.FAILED,
    Retry: TaskState.RETRIED,
    Continued: TaskState.RETRIED,
    Cancelled: TaskState.CANCELLED,
    Redeliver: TaskState.LOST,
    Requeue: TaskState.LOST,
}

#: The kind, how it ended (None: it did not run), the seconds it waited (None: not known) and ran, those of
#: them on a processor, and whether its events were chosen (None: nobody listens).
_Run = tuple[str, TaskState | None, float | None, float, float, bool | None]


class Metering(Middleware):
    """The tasks that ended, counted by the fields of `millpond.broker.stats.heartbeats.Totals`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        #: Appended by any thread.
        self.ended: deque[_Run] = deque(maxlen=KEPT)
        #: Kind and reason of each dead letter.
        self.errors: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._clock = clock
        self._looked_at = clock()
        self._running_seconds = 0.0

    def on_outcome(self, delivery: Delivery, outcome: Outcome, seconds: float | None) -> None:
        """Note a run by its kind: a sender may give every task a name of its own (Celery's `shadow`)."""
        kind, waited = delivery.message.kind, None
        if type(outcome) is DeadLetter:
            self.errors.append((kind, outcome.reason))
        if seconds is None or delivery.started_at is None:
            if delivery.events_shown:
                self.ended.append((kind, None, None, 0.0, 0.0, True))
            return
        since_ms = delivery.message.sent_ms if delivery.due_ms is None else delivery.ready_ms
        if since_ms is not None:
            waited = delivery.started_at + (delivery.clock_ms - since_ms) / 1000
        state = _STATES.get(type(outcome))
        self.ended.append((kind, state, waited, seconds, delivery.cpu_seconds, delivery.events_shown))

    def take_counts(self, *, slots: int) -> Counter[str]:
        """Return the counts since the last call. `slots` is the number of tasks the process can run at once.

        A task that still runs counts as busy for its time so far, so a long one shows at once.
        """
        counted: Counter[tuple[str, str, str]] = Counter()
        service_seconds = used = 0.0
        shown = left_out = 0
        while self.ended:
            kind, state, wait, service, cpu, sampled = self.ended.popleft()
            used += cpu
            if sampled is False and state is TaskState.SUCCEEDED:
                left_out += 1
            elif sampled or (sampled is False and state is not None):
                shown += 1
            if state is None:
                continue
            counted["ended", state, kind] += 1
            _add_duration(counted, "service", kind, service)
            if wait is not None:
                _add_duration(counted, "wait", kind, max(0.0, wait))
            service_seconds += service
        added = Counter({":".join(field): count for field, count in counted.items()})
        added["shown"], added["left_out"] = shown, left_out
        added["cpu_us"] = int(used * _MICROS)
        now, running = self._clock(), sum(self._clock() - start for start in _start_times())
        slot_seconds = max(0.0, now - self._looked_at) * slots
        busy_seconds = service_seconds + running - self._running_seconds
        self._looked_at, self._running_seconds = now, running
        added["slot_us"] = int(slot_seconds * _MICROS)
        added["busy_us"] = int(min(max(0.0, busy_seconds), slot_seconds) * _MICROS)
        return added


def count_busy() -> int:
    """Count the tasks that run in this process, or in a child of it."""
    return len(_start_times())


def _add_duration(counted: Counter[tuple[str, str, str]], field: str, kind: str, seconds: float) -> None:
    """Add a duration to the histogram `field` of a kind."""
    counted[field, NAMES[bucket_of(seconds)], kind] += 1
    counted[field, "us", kind] += int(seconds * _MICROS)


def _start_times() -> list[float]:
    """Return the start time of each running task.

    Other threads change the set meanwhile: its elements are copied in one step.
    """
    alive: list[Any] = [reference() for reference in list(active_requests.data)]
    return [request.time_start for request in alive if request is not None and request.time_start]
