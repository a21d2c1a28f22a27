"""Metrics of a worker process: how its tasks ended, how long they waited and how long they ran.

A task costs one append where it ends; the heartbeat's thread counts the appended entries once a second.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from celery.worker.state import active_requests

from millpond.broker.stats.histogram import NAMES, bucket
from millpond.broker.task_state import TaskState

#: Ends that are kept while the broker is away; more are not measured.
KEPT = 500_000

_MICROS = 1_000_000


class Meter:
    """The tasks that ended, counted by the fields of `millpond.broker.stats.heartbeats.Totals`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        #: Kind, how it ended, seconds it waited (None: not known), seconds it ran. Appended by any thread.
        self.ended: deque[tuple[str, TaskState, float | None, float]] = deque(maxlen=KEPT)
        #: Seconds of a processor that each run took, where its process survived it.
        self.used: deque[float] = deque(maxlen=KEPT)
        #: Kind and reason of each dead letter.
        self.errors: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._clock = clock
        self._looked_at = clock()
        self._running_seconds = 0.0

    def count(self, *, slots: int) -> Counter[str]:
        """Return the counts since the last call; `slots` is the number of tasks the process can run at once.

        A task that still runs counts as busy for its time so far, so a long one shows at once.
        """
        counted: Counter[tuple[str, str, str]] = Counter()
        service_seconds = 0.0
        while self.ended:
            kind, state, wait, service = self.ended.popleft()
            counted["ended", state, kind] += 1
            _add(counted, "service", kind, service)
            if wait is not None:
                _add(counted, "wait", kind, max(0.0, wait))
            service_seconds += service
        added = Counter({":".join(field): count for field, count in counted.items()})
        used = 0.0
        while self.used:
            used += self.used.popleft()
        added["cpu_us"] = int(used * _MICROS)
        now, running = self._clock(), sum(self._clock() - start for start in _starts())
        slot_seconds = max(0.0, now - self._looked_at) * slots
        busy_seconds = service_seconds + running - self._running_seconds
        self._looked_at, self._running_seconds = now, running
        added["slot_us"] = int(slot_seconds * _MICROS)
        added["busy_us"] = int(min(max(0.0, busy_seconds), slot_seconds) * _MICROS)
        return added


def busy() -> int:
    """Count the tasks that run in this process, or in a child of it."""
    return len(_starts())


def _add(counted: Counter[tuple[str, str, str]], field: str, kind: str, seconds: float) -> None:
    counted[field, NAMES[bucket(seconds)], kind] += 1
    counted[field, "us", kind] += int(seconds * _MICROS)


def _starts() -> list[float]:
    """Return the start time of each running task.

    Other threads change the set meanwhile: its elements are copied in one step.
    """
    alive: list[Any] = [reference() for reference in list(active_requests.data)]
    return [request.time_start for request in alive if request is not None and request.time_start]
