"""The outcomes of a send: the values that a client returns."""

from dataclasses import dataclass
from typing import Any

from millpond.broker.errors import BatchClosed, DeadlineExceeded, QueueFull
from millpond.broker.task_state import TaskState


@dataclass(frozen=True, slots=True)
class RanHere:
    """How a task ended that the caller ran itself, because its queue was full (`caller_runs`).

    `value` is its result. `error` is the reason why it failed, in one line. A task that failed is a dead
    letter, as in the pool. `delayed`: its handler requested a retry, which the pool runs.
    """

    state: TaskState
    value: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The message is on its queue, unless it is a duplicate or was run by the caller.

    `duplicate_of` is the id of the earlier task with the same unique key. This message was then not accepted.
    `ran_here` is how the task ended if the caller ran it.
    """

    id: str
    queue: str
    duplicate_of: str | None = None
    ran_here: RanHere | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The message was not accepted and left nothing behind. `error` states the reason and the remedy."""

    id: str
    queue: str
    error: QueueFull | BatchClosed | DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcomes of many messages: `accepted` on a queue or run by the caller, and `duplicates`.

    `ran_here` is the number of accepted messages that the caller ran itself.
    """

    accepted: int = 0
    duplicates: int = 0
    ran_here: int = 0
