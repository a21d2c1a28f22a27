"""Count what one command sends and what comes back, and remember what the tasks under way are called."""

import threading
from dataclasses import dataclass, field
from time import monotonic

from millpond.broker.batches.record import Result
from millpond.broker.task_state import TaskState


@dataclass
class Count:
    """Count a command's inputs by what became of them. Guarded by one lock: two threads write it.

    `labels` holds what is under way and nothing else, so its size is bounded by what queues and workers hold.
    """

    total: int | None = None
    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    left_out: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def going(self, id: str, label: str) -> None:
        """Note that a task is about to be sent; called before, for its result may come at once."""
        with self._lock:
            self.labels[id] = label

    def gone(self) -> None:
        """Note that a task was taken."""
        with self._lock:
            self.sent += 1

    def settled(self, result: Result) -> str:
        """Note a result; return what its task is called."""
        with self._lock:
            if result.state is TaskState.SUCCEEDED:
                self.succeeded += 1
            else:
                self.failed += 1
            return self.labels.pop(result.id, result.id)

    def oldest(self) -> tuple[str, str]:
        """Return the id and the label of what has been under way longest; both empty where nothing is."""
        with self._lock:
            return next(iter(self.labels.items()), ("", ""))

    def left(self) -> None:
        """Note an input that no task could be made of."""
        with self._lock:
            self.left_out += 1

    @property
    def done(self) -> int:
        """Count what is finished, one way or the other."""
        return self.succeeded + self.failed + self.left_out

    @property
    def pending(self) -> int:
        """Count what was sent and is not settled."""
        return max(0, self.sent - self.succeeded - self.failed)

    @property
    def seconds(self) -> float:
        """Return how long this goes on."""
        return monotonic() - self.started

    @property
    def rate(self) -> float:
        """Return how many a second were done, over all."""
        return self.done / self.seconds if self.seconds > 0 else 0.0
