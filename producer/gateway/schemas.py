"""Show over HTTP what the broker knows: the models of the answers."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from millpond.broker.batches.record import Summary
from millpond.broker.task_state import TaskState


class Accepted(BaseModel):
    """Name the task that was taken, or the earlier one that holds its name: then it is a duplicate."""

    id: str
    queue: str
    duplicate: bool


class KindView(BaseModel):
    """Describe a kind that may be sent."""

    kind: str
    queue: str
    description: str
    example: dict[str, Any]


class BatchView(BaseModel):
    """Count a batch; times are ms since the epoch by the broker's clock."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    description: str
    sent: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    pending: int
    complete: bool
    opened_at_ms: int
    closed_at_ms: int | None
    completed_at_ms: int | None
    cancelled_at_ms: int | None


class CancelView(BaseModel):
    """Tell of a cancellation: the worker processes that had not heard of it in time. None: all had."""

    unacknowledged: list[str]


class ProgressView(BaseModel):
    """Say how far a task got, in units of its own."""

    done: int
    total: int | None


class TaskView(BaseModel):
    """The state of a task: how it ended if it was tracked, or else where it is.

    `value` is its result, `error` the reason why it failed, in one line.
    """

    id: str
    state: TaskState
    kind: str | None = None
    progress: ProgressView | None = None
    value: Any = None
    error: str | None = None


class HealthView(BaseModel):
    """Say whether the gateway can do its work."""

    status: Literal["live", "ready", "stopping", "broker_away"]


def as_object(summary: Summary) -> dict[str, Any]:
    """Return the counts of a batch as JSON has them."""
    return BatchView.model_validate(summary).model_dump()
