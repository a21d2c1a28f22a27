"""The counts of one command's tasks, and the labels of its pending tasks."""

import threading
from dataclasses import dataclass, field
from time import monotonic

from millpond.broker.batches.record import Result
from millpond.broker.task_state import TaskState


@dataclass
class Counters:
    """The counts of a command's inputs by outcome.

    The thread that sends writes `total`, `sent` and `skipped`, the thread that reads results the others.
    `total` is None while inputs are still read. `labels` has the labels of pending tasks, by id, so its size
    is bounded by the bounds of the queues. Both threads change it, under a lock.
    """

    total: int | None = None
    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    started_at: float = field(default_factory=monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_label(self, id: str, label: str) -> None:
        """Keep the label of a task for its result. Call this before the send: the result may come at once."""
        with self._lock:
            self.labels[id] = label

    def count_result(self, result: Result) -> str:
        """Count a result and return the label of its task, or the id of a task without a label."""
        if result.state is TaskState.SUCCEEDED:
            self.succeeded += 1
        else:
            self.failed += 1
        with self._lock:
            return self.labels.pop(result.id, result.id)

    def longest_pending(self) -> tuple[str, str]:
        """Return the id and the label of the task that has been pending longest, or two empty texts."""
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
        return monotonic() - self.started_at

    @property
    def rate(self) -> float:
        """The number of inputs with an outcome, divided by the seconds since the command began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0
