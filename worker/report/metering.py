"""Built-in middleware that meters tasks: how they ended, how long they waited and how long they ran.

The end of a task costs one append. The thread of the heartbeat counts the appended entries once a second.
"""

import time
from collections import Counter, deque
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

#: The maximum of entries that are kept until they are counted. The oldest ones beyond it are lost.
MOST_KEPT = 500_000

_MICROS = 1_000_000

#: The state as which a run is counted, by the type of its outcome. Other outcomes are not counted as runs.
_STATES: dict[type[Any], TaskState] = {
    Succeeded: TaskState.SUCCEEDED,
    DeadLetter: TaskState.FAILED,
    Retry: TaskState.RETRIED,
    Continued: TaskState.RETRIED,
    Cancelled: TaskState.CANCELLED,
    Redeliver: TaskState.LOST,
    Requeue: TaskState.LOST,
}

#: The kind, the state in which it ended (None: it did not run), the seconds of its wait (None: not known) and
#: of its run, its seconds on a processor, and whether its events were sent (None: no task's events are sent).
_Run = tuple[str, TaskState | None, float | None, float, float, bool | None]


class Metering(Middleware):
    """Collects the tasks that end, and counts them by the fields of `Totals` (broker/stats/heartbeats.py)."""

    def __init__(self) -> None:
        #: The tasks that have ended and are not counted yet. Any thread appends.
        self.ended: deque[_Run] = deque(maxlen=MOST_KEPT)
        #: Kind and reason of each dead letter.
        self.errors: deque[tuple[str, str]] = deque(maxlen=MOST_KEPT)
        #: The time of the last count, and the run times until then of the tasks that ran at that time.
        self._counted_at = time.time()
        self._running_seconds = 0.0

    def on_outcome(self, delivery: Delivery, outcome: Outcome, seconds: float | None) -> None:
        """Append an entry for the end of a task. `seconds` is its run time, None if it did not run.

        The task is counted by its kind, not by its name: with Celery's `shadow` each task may have another.
        """
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
        """Return the counts since the last call, by the names of the fields of the totals.

        `slots` is the number of tasks that the process can run at once. A task that still runs counts as busy
        for its time since the last call, so a long task shows at once.
        """
        by_kind: Counter[tuple[str, str, str]] = Counter()
        service_seconds = cpu_seconds = 0.0
        shown = left_out = 0
        while self.ended:
            kind, state, wait, service, cpu, events_sent = self.ended.popleft()
            cpu_seconds += cpu
            if events_sent is False and state is TaskState.SUCCEEDED:
                left_out += 1
            elif events_sent or (events_sent is False and state is not None):
                shown += 1  # a task that failed is shown although it was not in the sample
            if state is None:
                continue
            by_kind["ended", state, kind] += 1
            _add_duration(by_kind, "service", kind, service)
            if wait is not None:
                _add_duration(by_kind, "wait", kind, max(0.0, wait))
            service_seconds += service
        slot_seconds, busy_seconds = self._take_slot_seconds(slots, service_seconds)
        counts = Counter({":".join(field): count for field, count in by_kind.items()})
        counts["shown"], counts["left_out"] = shown, left_out
        counts["cpu_us"] = int(cpu_seconds * _MICROS)
        counts["slot_us"] = int(slot_seconds * _MICROS)
        counts["busy_us"] = int(busy_seconds * _MICROS)
        return counts

    def _take_slot_seconds(self, slots: int, service_seconds: float) -> tuple[float, float]:
        """Return the seconds since the last call, of all slots together and of busy ones.

        `service_seconds` are the run times of the tasks that have ended since then.
        """
        now = time.time()
        running_seconds = sum(now - start for start in _start_times())
        slot_seconds = max(0.0, now - self._counted_at) * slots
        busy_seconds = service_seconds + running_seconds - self._running_seconds
        self._counted_at, self._running_seconds = now, running_seconds
        return slot_seconds, min(max(0.0, busy_seconds), slot_seconds)


def count_running_tasks() -> int:
    """Return the number of tasks that run in this process or in its children."""
    return len(_start_times())


def _add_duration(counted: Counter[tuple[str, str, str]], field: str, kind: str, seconds: float) -> None:
    """Add a duration to the histogram `field` of a kind."""
    counted[field, NAMES[bucket_of(seconds)], kind] += 1
    counted[field, "us", kind] += int(seconds * _MICROS)


def _start_times() -> list[float]:
    """Return the start time of each running task, in seconds since 1970."""
    # Other threads change this weak set meanwhile: its references are copied in one step.
    requests: list[Any] = [reference() for reference in list(active_requests.data)]
    return [request.time_start for request in requests if request is not None and request.time_start]
