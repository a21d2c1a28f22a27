"""Choose the tasks whose Celery events are sent: all of them up to a rate, beyond it a sample of whole tasks.

A person reads a few tasks a second, and whoever listens takes longer over the events of a short task than its
worker over the task. So a task is chosen as it is received, and its later events follow. What goes wrong is
always told, and then what came before it as well. Pages and metrics count in Redis, whatever is chosen.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from celery import Celery

from millpond.tasks.settings import Settings
from millpond.worker.celery.expiry import ExpiringRequest

#: A process that was quiet may show so many seconds' worth of tasks at once.
BURST_SECONDS = 10.0

#: Events of a task with which all is well; any other is sent whether or not the task was chosen.
_ORDINARY = frozenset(("task-started", "task-succeeded"))


class Sample:
    """Choose tasks at a rate (a second; 0: all of them) by a token bucket, and count."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._most = self._tokens = per_second * BURST_SECONDS
        self._clock = clock
        self._at = clock()
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """Say whether the next task is chosen; called by the event loop alone."""
        if not self._per_second:
            return True
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def note(self, what: str) -> None:
        """Count a task as `shown` or as `left_out`; called by any thread."""
        with self._lock:
            self._counted[what] += 1

    def count(self) -> Counter[str]:
        """Return what was counted since the last call, by fields of `heartbeats.Totals`."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return counted


class SampledRequest(ExpiringRequest):
    """Celery's request, which sends its events if it was chosen, or once something goes wrong."""

    #: Shared by the requests of this process; set by the strategy.
    sample: Sample
    #: When it was received, where it was left out of the sample (seconds since 1970).
    left_out_at: float | None = None
    #: It was told that it started; one that was taken back from a prefork child starts again.
    start_told = False

    def announce(self) -> None:
        """Tell that it was received, if it is chosen."""
        if self.sample.admits():
            self._tell_received(self._eventer.send)
        else:
            self.left_out_at = time.time()

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event of this task, if it is shown."""
        if self.left_out_at is not None:
            if type in _ORDINARY:
                if type == "task-succeeded":
                    self.sample.note("left_out")
                return
            self._show_late()
        if type == "task-started":
            if self.start_told:
                return
            self.start_told = True
        super().send_event(type, **fields)

    def _show_late(self) -> None:
        """Tell what was left out so far, with the times at which it happened."""
        received_at, self.left_out_at = self.left_out_at, None
        self._tell_received(self._eventer.send, timestamp=received_at)
        if self.time_start is not None:
            self.start_told = True
            self._eventer.send("task-started", uuid=self.id, timestamp=self.time_start)

    def _tell_received(self, send: Callable[..., Any], **more: Any) -> None:
        send(
            "task-received",
            uuid=self.id,
            name=self.name,
            args=self.argsrepr,
            kwargs=self.kwargsrepr,
            root_id=self.root_id,
            parent_id=self.parent_id,
            retries=self.request_dict.get("retries", 0),
            eta=None,
            expires=self.expires and self.expires.isoformat(),
            **more,
        )
        self.sample.note("shown")


def install(app: Celery, settings: Settings) -> None:
    """Let each worker of this application choose at the configured rate."""
    app.sample = Sample(settings.task_events_per_second)
