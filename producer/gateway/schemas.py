"""The models of the responses, as OpenAPI shows them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from millpond.broker.batches.record import Summary
from millpond.broker.task_state import TaskState
from millpond.producer.send_outcomes import Sent


class Accepted(BaseModel):
    """The task that was accepted, or, if `duplicate`, the earlier task with its unique key."""

    id: str
    queue: str
    duplicate: bool


class KindView(BaseModel):
    """A kind that may be sent."""

    kind: str
    queue: str
    description: str
    example: dict[str, Any]


class BatchView(BaseModel):
    """The counts of a batch; times are ms since the epoch by the broker's clock, null: not yet."""

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
    """The worker processes that did not acknowledge a cancellation in time; empty: all did."""

    model_config = ConfigDict(from_attributes=True)

    unacknowledged: list[str]


class ProgressView(BaseModel):
    """The progress of a task, in units of its handler; `total` is null if it is unknown."""

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
    """The health of the gateway."""

    status: Literal["live", "ready", "stopping", "broker_away"]


def accepted_json(sent: Sent) -> dict[str, Any]:
    """Return the `Accepted` of a send as a JSON object. Made by hand, because pydantic takes longer."""
    is_duplicate = sent.duplicate_of is not None
    return {"id": sent.duplicate_of or sent.id, "queue": sent.queue, "duplicate": is_duplicate}


def batch_json(summary: Summary) -> dict[str, Any]:
    """Return the `BatchView` of a summary as a JSON object."""
    return BatchView.model_validate(summary).model_dump()
