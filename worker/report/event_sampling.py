"""Choose the tasks whose Celery events are sent: all of them up to a rate, beyond it a sample of whole tasks.

A person reads a few tasks a second, and a listener spends longer on the events of a short task than its
worker on the task. So a task is chosen as it is received, and its later events follow. A failure is always
sent, with the events before it. Pages and metrics count every task, in Redis.
"""

import time
from collections import Counter, deque
from collections.abc import Callable

from celery import Celery

from millpond.tasks.settings import Settings

#: A process that was quiet may show so many seconds' worth of tasks at once.
BURST_SECONDS = 10.0

#: Events of a task with which all is well; any other is sent whether or not the task was chosen.
ORDINARY = frozenset(("task-started", "task-succeeded"))


class Sample:
    """Choose tasks at a rate (a second; 0: all of them) by a token bucket, and count."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._most = self._tokens = per_second * BURST_SECONDS
        self._clock = clock
        self._at = clock()
        #: An entry for each task that was shown or left out since it was last counted; any thread appends.
        self.shown: deque[None] = deque()
        self.left_out: deque[None] = deque()

    def admits(self) -> bool:
        """True if the next task is chosen; called by the event loop alone."""
        if not self._per_second:
            return True
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def count(self) -> Counter[str]:
        """Return the counts since the last call, by fields of `heartbeats.Totals`."""
        counted = Counter({"shown": len(self.shown), "left_out": len(self.left_out)})
        for _ in range(counted["shown"]):
            self.shown.popleft()
        for _ in range(counted["left_out"]):
            self.left_out.popleft()
        return counted


def install(app: Celery, settings: Settings) -> None:
    """Sample events in this application's workers at the configured rate."""
    app.sample = Sample(settings.task_events_per_second)
