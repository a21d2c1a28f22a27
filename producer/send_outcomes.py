"""Say what became of a message that was sent: the values that the client gives back."""

from dataclasses import dataclass
from typing import Any

from millpond.broker.errors import BatchClosed, DeadlineExceeded, QueueFull
from millpond.broker.task_state import TaskState


@dataclass(frozen=True, slots=True)
class RanHere:
    """Tell how a task ended that the caller ran itself, for want of room in the queue.

    `value` is what its body returned, `error`, one line, why it failed. A failed one is a dead letter, as it
    would be in the pool; `delayed`: the body asked to be run later, and the pool will.
    """

    state: TaskState
    value: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The message is on its queue, or an earlier one holds its claim and goes by `duplicate_of`.

    Then it was not taken. `ran_here` tells how it ended where the caller ran it itself.
    """

    id: str
    queue: str
    duplicate_of: str | None = None
    ran_here: RanHere | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The message was not taken and left nothing behind; `error` says why and what to do."""

    id: str
    queue: str
    error: QueueFull | BatchClosed | DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Tally:
    """Count what a stream of messages came to: those taken, and those whose claim an earlier task holds.

    `ran_here` counts those taken that the caller ran itself.
    """

    accepted: int = 0
    duplicates: int = 0
    ran_here: int = 0
