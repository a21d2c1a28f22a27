"""The counts of one command's tasks, and the labels of its pending tasks."""

import threading
from dataclasses import dataclass, field
from time import monotonic

from millpond.broker.batches.record import Result
from millpond.broker.task_state import TaskState


@dataclass
class Counters:
    """The inputs of a command by outcome. Two threads write them, under one lock.

    `labels` has the pending tasks only, by id, so the bounds of the queues bound its size.
    """

    total: int | None = None
    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_label(self, id: str, label: str) -> None:
        """Remember the label of a task. Call this before the task is sent: its result may come at once."""
        with self._lock:
            self.labels[id] = label

    def count_sent(self) -> None:
        """Count a task that was accepted."""
        with self._lock:
            self.sent += 1

    def count_result(self, result: Result) -> str:
        """Count a result and return the label of its task."""
        with self._lock:
            if result.state is TaskState.SUCCEEDED:
                self.succeeded += 1
            else:
                self.failed += 1
            return self.labels.pop(result.id, result.id)

    def count_skipped(self) -> None:
        """Count an input without a task."""
        with self._lock:
            self.skipped += 1

    def longest_pending(self) -> tuple[str, str]:
        """Return id and label of the task that has been pending longest. Both are empty if none is."""
        with self._lock:
            return next(iter(self.labels.items()), ("", ""))

    @property
    def done(self) -> int:
        """The number of inputs with an outcome."""
        return self.succeeded + self.failed + self.skipped

    @property
    def pending(self) -> int:
        """The number of tasks that were sent and have no result."""
        return max(0, self.sent - self.succeeded - self.failed)

    @property
    def seconds(self) -> float:
        """The seconds since the command began."""
        return monotonic() - self.started

    @property
    def rate(self) -> float:
        """The inputs done a second, over the whole time."""
        return self.done / self.seconds if self.seconds > 0 else 0.0
