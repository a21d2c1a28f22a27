"""The options of a send, from the query of a request or from a line of a stream."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from starlette.datastructures import QueryParams

from millpond.producer.gateway.problems import invalid_input_error
from millpond.producer.gateway.tokens import Principal
from millpond.producer.message import Message, Sendable
from millpond.tasks import durations
from millpond.tasks.errors import BadQuantity
from millpond.tasks.send_options import option_descriptions

_DAY_SECONDS = 86_400.0
_LONGEST_SECONDS = 10 * 365 * _DAY_SECONDS

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
#: A time whose zone has lost its plus, which is a space in a query that was not encoded.
_PLUS_AS_SPACE = re.compile(r"([0-9-]+T[0-9:.,]+) ([0-9]{2}:?[0-9]{2})", re.I)

Query = TypeVar("Query", bound=BaseModel)


def refuse_in_words(words: str) -> WrapValidator:
    """Return a validator with these words as its error, in place of a pattern that people cannot read."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(words) from None

    return WrapValidator(validate)


#: An id may begin with the name of a token, and so with dots. Alone, these would be removed from a path.
Id = Annotated[
    str,
    Field(pattern=r"^\.*[A-Za-z0-9_:~-][A-Za-z0-9._:~-]*$", max_length=200),
    refuse_in_words("must have 1 to 200 of these: letters, digits, . _ : ~ and -, and not dots alone"),
]
BatchId = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
    refuse_in_words("must be the id of a batch, as POST /batches returns it"),
]
Name = Annotated[
    str, Field(pattern=r"^[ -~]{1,200}$"), refuse_in_words("must have 1 to 200 printable ASCII characters")
]


def _parse_seconds(value: object) -> float:
    """Return the seconds of a duration. Raises `ValueError`, whose message does not repeat the value."""
    try:
        return durations.parse_seconds(value)
    except BadQuantity:
        raise ValueError(f"write {durations.DURATION}") from None


def _duration_schema(minimum: float, maximum: float, pattern: str) -> WithJsonSchema:
    """Return the JSON schema of a duration: a number of seconds, or a text with a unit, as in the pattern."""
    number = {"type": "number", "minimum": minimum, "maximum": maximum}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


def _restore_plus(value: object) -> object:
    """Return a time with the plus of its zone, if that was read as a space."""
    found = _PLUS_AS_SPACE.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else f"{found[1]}+{found[2]}"


def _check_range(at: datetime) -> datetime:
    """Return the time. Raises `ValueError` for one that no task can have."""
    if not _EARLIEST < at < _LATEST:
        raise ValueError("must lie between the years 2000 and 2200")
    return at


#: A time with its zone.
Moment = Annotated[AwareDatetime, BeforeValidator(_restore_plus), AfterValidator(_check_range)]
#: A number of seconds, or a text as in 90s or 1.5h.
Seconds = Annotated[
    float,
    BeforeValidator(_parse_seconds),
    Field(ge=0.001, le=_LONGEST_SECONDS),
    _duration_schema(0.001, _LONGEST_SECONDS, r"^[1-9][0-9]{0,2}(ms|s|m|h|d)$"),
]
#: The same for a wait of at most a day, which may be 0.
WaitSeconds = Annotated[
    float,
    BeforeValidator(_parse_seconds),
    Field(ge=0, le=_DAY_SECONDS),
    _duration_schema(0, _DAY_SECONDS, r"^[0-9]{1,3}(ms|s|m)$"),
]

#: The description of each option, by its name in Python.
_ABOUT = option_descriptions()


class SendOptions(BaseModel):
    """The options of one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: Name | None = Field(None, description=_ABOUT["queue"])
    id: Id | None = Field(None, description=_ABOUT["id"])
    priority: int = Field(0, ge=0, le=9, description=_ABOUT["priority"])
    delay_seconds: Seconds | None = Field(None, description=_ABOUT["delay"])
    at: Moment | None = Field(None, description=_ABOUT["at"])
    expires_seconds: Seconds | None = Field(None, description=_ABOUT["expires"])
    deadline_seconds: Seconds | None = Field(None, description=_ABOUT["deadline"])
    once: Name | None = Field(None, description=_ABOUT["once"])
    for_seconds: Seconds | None = Field(None, description=_ABOUT["for_"])

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        """Raise `ValueError` for options that exclude each other."""
        if self.delay_seconds is not None and self.at is not None:
            raise ValueError("give delay_seconds or at, not both")
        if self.deadline_seconds is not None and self.expires_seconds is not None:
            raise ValueError("give deadline_seconds or expires_seconds, not both")
        if self.for_seconds is not None and self.once is None:
            raise ValueError("for_seconds is how long the unique key of once is kept: give both")
        return self

    def to_message(self, contract: Sendable, traceparent: str | None, principal: Principal) -> Message:
        """Return the message for the client. Its id and unique key are in the principal's name space."""
        return Message(
            contract,
            queue=self.queue,
            id=self.id or principal.new_task_id(),
            priority=self.priority,
            delay=_to_timedelta(self.delay_seconds),
            at=self.at,
            expires=_to_timedelta(self.expires_seconds),
            deadline=_to_timedelta(self.deadline_seconds),
            once=principal.namespaced_key(self.once),
            for_=_to_timedelta(self.for_seconds),
            traceparent=traceparent,
        )


class RequestOptions(SendOptions):
    """The options of the one task of a request."""

    overflow: Literal["reject", "shed"] | None = Field(
        None, description="The overflow policy, instead of the queue's; a request never waits for room."
    )
    batch: BatchId | None = Field(None, description="The open batch to send the task into.")
    track: bool = Field(False, description="Keep the state and the result for a day after the task ended.")

    @model_validator(mode="after")
    def _check_track(self) -> Self:
        if self.track and self.batch is not None:
            raise ValueError("a batch keeps the results of its tasks: give track or batch, not both")
        return self


class StreamTask(SendOptions):
    """One line of a stream: the kind of a task, the fields of its contract, and its options."""

    kind: str
    task: dict[str, Any]


def _to_timedelta(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def read_query(model: type[Query], query: bytes) -> Query:
    """Return the options of a query string. Raises `ApiError` 422."""
    try:
        return model.model_validate(dict(QueryParams(query)))
    except ValidationError as error:
        raise invalid_input_error(error, whole="query") from None
