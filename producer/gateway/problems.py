"""Error responses: an HTTP status, a code for programs and one line for people.

No error repeats a value that was sent: it names the field.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millpond.producer import json_text
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
from millpond.tasks.field_faults import describe_fault, describe_faults

#: `Retry-After`, in seconds, if the drain rate of the queue is unknown, and its maximum in any response.
UNKNOWN_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 60


class FieldError(BaseModel):
    """A field at fault, as a dotted path, and its fault in words.

    `body`, `query`, `line` or `task` is at fault as a whole, where its fields do not fit each other.
    """

    field: str
    message: str


class Problem(BaseModel):
    """A refusal with its reason. The last four fields are sent only if they apply."""

    code: str
    message: str
    fields: list[FieldError] | None = None
    queue: str | None = None
    bound: int | None = None
    retry_after: int | None = None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: Problem


class ApiError(HTTPException):
    """The exception that ends a request with an error response.

    `more` are further fields of its `Problem`. With `retry_after`, it also sets the header `Retry-After`.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        self.problem = Problem(code=code, message=message, **more)
        retry_after = self.problem.retry_after
        own_headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, code, {**own_headers, **(headers or {})})

    def response(self) -> JSONResponse:
        """Return the error response."""
        return JSONResponse(self.to_json(), self.status_code, self.headers)

    def to_json(self) -> dict[str, Any]:
        """Return the body of the error response as a JSON object."""
        return {"error": self.problem.model_dump(exclude_none=True)}


def batch_too_large_error(batch: str) -> ApiError:
    """Return the error for a batch that has as many tasks as `max_batch_tasks` allows."""
    return ApiError(
        413, "batch_too_large", f"batch {batch} has as many tasks as a batch may have: open another"
    )


def internal_error() -> ApiError:
    """Return the error for an unexpected exception."""
    return ApiError(500, "internal_error", "an error of the gateway itself: its log says where it happened")


def translate_error(error: Exception, *, is_send: bool = False) -> ApiError:
    """Return the error of the gateway for an error of the client. Raises an error of any other type again.

    With `is_send`, it was raised while a task was sent, which may have been accepted without a reply.
    """
    message = str(error)
    match error:
        case ApiError():
            return error
        case QueueFull():
            seconds = error.retry_after_seconds
            after = UNKNOWN_RETRY_SECONDS if seconds is None else _bound_retry(seconds)
            return ApiError(
                429, "queue_full", message, queue=error.queue, bound=error.bound, retry_after=after
            )
        case DeadlineExceeded():
            after = _bound_retry(error.wait_seconds)
            return ApiError(429, "deadline_exceeded", message, queue=error.queue, retry_after=after)
        case BatchClosed():
            return ApiError(409, "batch_closed", message)
        case UnknownBatch():
            return ApiError(404, "unknown_batch", message)
        case UnknownKind():
            return ApiError(404, "unknown_kind", message)
        case UnknownQueue():
            fields = [FieldError(field="queue", message=message)]
            return ApiError(422, "unknown_queue", message, fields=fields)
        case BadContract() | ValueError():
            return ApiError(422, "bad_contract", message)
        case BrokerAway():
            remedy = (
                "; the task may have been accepted: send it again with once=…" if is_send else ": try again"
            )
            text = f"the broker cannot be reached{remedy}"
            return ApiError(503, "broker_away", text, retry_after=UNKNOWN_RETRY_SECONDS)
        case BrokerError():
            return ApiError(503, "broker_refused", message, retry_after=UNKNOWN_RETRY_SECONDS)
    raise error


def _bound_retry(seconds: float) -> int:
    """Return the next whole number of seconds, at least 1 and at most `LONGEST_RETRY_SECONDS`."""
    return min(LONGEST_RETRY_SECONDS, max(1, math.ceil(seconds)))


def invalid_input_error(error: Exception, *, subject: str = "this request", whole: str = "body") -> ApiError:
    """Return the error 422 for an input that is not JSON or does not fit its model.

    The message begins with `subject`. `whole` is the name of the input, for a fault that no field has alone.
    """
    if isinstance(error, ValidationError):
        errors = error.errors(include_url=False, include_input=False)
        return invalid_fields_error(errors, subject=subject, whole=whole)
    # Without a type, as it is a sentence.
    fault = {"loc": (), "msg": json_text.describe_fault(f"the {whole}", error)}
    return invalid_fields_error([fault], subject=subject, whole=whole)


def invalid_fields_error(
    errors: Sequence[Any], *, subject: str = "this request", whole: str = "body"
) -> ApiError:
    """Return the error 422 for pydantic's list of errors. It names each field at fault, without its value."""
    fields = [
        FieldError(field=".".join(map(str, error["loc"])) or whole, message=describe_fault(error))
        for error in errors
    ]
    faults = "; ".join(describe_faults(errors, whole=whole))
    return ApiError(422, "bad_contract", f"{subject} is not valid: {faults}", fields=fields)
