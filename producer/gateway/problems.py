"""Say over HTTP what was refused: a status, a code for programs, a line for people.

Nothing that was sent is repeated: a field is named, its value is not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millpond.tasks.errors import (
    BadContract,
    BatchClosed,
    BrokerAway,
    BrokerError,
    DeadlineExceeded,
    QueueFull,
    UnknownBatch,
    UnknownKind,
    UnknownQueue,
)
from millpond.tasks.field_faults import in_words

#: Told to come back after this long where the queue's rate is not known, and at most after so long.
UNKNOWN_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 60


class FieldFault(BaseModel):
    """Name a field and what is wrong with it."""

    field: str
    message: str


class Fault(BaseModel):
    """Say what was refused and why; the last four only where they say something."""

    code: str
    message: str
    fields: list[FieldFault] | None = None
    queue: str | None = None
    bound: int | None = None
    retry_after: int | None = None


class Problem(BaseModel):
    """Hold a fault: the body of every answer that is none."""

    error: Fault


class Refusal(HTTPException):
    """Carry a fault to the answer."""

    def __init__(self, status: int, fault: Fault, headers: Mapping[str, str] | None = None) -> None:
        later = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        super().__init__(status, fault.code, {**later, **(headers or {})})
        self.fault = fault

    def answer(self) -> JSONResponse:
        """Return the answer that says it."""
        return JSONResponse(self.content(), self.status_code, self.headers)

    def content(self) -> dict[str, Any]:
        """Return the fault as JSON has it."""
        return {"error": self.fault.model_dump(exclude_none=True)}


def refusal(status: int, code: str, message: str, **more: Any) -> Refusal:
    """Make a refusal."""
    return Refusal(status, Fault(code=code, message=message, **more))


def surprised() -> Refusal:
    """Return what is said where nothing else is known."""
    return refusal(500, "surprise", "this should not have happened; the gateway's log says where it did")


def explained(error: Exception) -> Refusal:
    """Return how HTTP says what the client raised; what is no refusal is raised again."""
    message = str(error)
    match error:
        case Refusal():
            return error
        case QueueFull():
            after = retry_after(error)
            return refusal(
                429, "queue_full", message, queue=error.queue, bound=error.bound, retry_after=after
            )
        case DeadlineExceeded():
            after = _bounded(error.wait_seconds)
            return refusal(429, "deadline_exceeded", message, queue=error.queue, retry_after=after)
        case BatchClosed():
            return refusal(409, "batch_closed", message)
        case UnknownBatch():
            return refusal(404, "unknown_batch", message)
        case UnknownKind():
            return refusal(404, "unknown_kind", message)
        case UnknownQueue():
            return refusal(422, "unknown_queue", message, fields=[FieldFault(field="queue", message=message)])
        case BadContract() | ValueError():
            return refusal(422, "bad_contract", message)
        case BrokerAway():
            text = "the broker cannot be reached. What was asked may have been done: ask again with once=…"
            return refusal(503, "broker_away", text, retry_after=UNKNOWN_RETRY_SECONDS)
        case BrokerError():
            return refusal(503, "broker_refused", message, retry_after=UNKNOWN_RETRY_SECONDS)
    raise error


def retry_after(full: QueueFull) -> int:
    """Return the whole seconds after which a queue that is full now is worth another try."""
    if full.retry_after_seconds is None:
        return UNKNOWN_RETRY_SECONDS
    return _bounded(full.retry_after_seconds)


def _bounded(seconds: float) -> int:
    return min(LONGEST_RETRY_SECONDS, max(1, math.ceil(seconds)))


def bad_fields(errors: Sequence[Any], *, what: str) -> Refusal:
    """Return the refusal of what does not fit a contract or an option, by pydantic's list of errors."""
    faults = [FieldFault(field=_place(error["loc"]), message=in_words(error)) for error in errors]
    names = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
    return refusal(422, "bad_contract", f"{what}: {names}", fields=faults)


def _place(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location)) or "it"
