"""Describe how a task is to be sent: the options of `Client.send`, as a query or a line spells them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from starlette.datastructures import QueryParams

from millpond.producer.gateway.problems import bad_fields
from millpond.producer.message import Message, Sendable
from millpond.tasks import durations
from millpond.tasks.errors import BadQuantity

_FARTHEST_SECONDS = 10 * 365 * 86_400.0

Query = TypeVar("Query", bound=BaseModel)
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:~-][A-Za-z0-9._:~-]{0,199}$")]
BatchId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]


def _seconds(value: object) -> float:
    """Return the seconds of a duration; the error does not repeat what was sent."""
    try:
        return durations.seconds(value)
    except BadQuantity:
        raise ValueError(f"write {durations.DURATION}") from None


#: A number of seconds, or a text as in 90s or 1.5h.
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0.001, le=_FARTHEST_SECONDS),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0.001, "maximum": _FARTHEST_SECONDS},
                {"type": "string", "pattern": r"^[1-9][0-9]{0,2}(ms|s|m|h|d)$"},
            ]
        }
    ),
]


class Options(BaseModel):
    """Say how one task is to be sent; `once` names it, and a second of that name is a duplicate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: Name | None = Field(None, description="Instead of the queue of its kind.")
    id: Id | None = Field(None, description="Of the sender's choice, instead of a new UUID.")
    priority: int = Field(0, ge=0, le=9, description="0 leaves first.")
    delay_seconds: Seconds | None = Field(None, description="Not before so long from now.")
    at: AwareDatetime | None = Field(None, description="Not before this moment.")
    expires_seconds: Seconds | None = Field(None, description="Not started later than so long from now.")
    deadline_seconds: Seconds | None = Field(
        None, description="Refused if the queue cannot start it by then; not run if it then did not."
    )
    once: Name | None = Field(None, description="Who sends it again while it is not done gets a duplicate.")
    for_seconds: Seconds | None = Field(None, description="How long `once` holds, whether it is done or not.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.delay_seconds is not None and self.at is not None:
            raise ValueError("give delay_seconds or at, not both")
        if self.deadline_seconds is not None and self.expires_seconds is not None:
            raise ValueError("give deadline_seconds or expires_seconds, not both")
        if self.for_seconds is not None and self.once is None:
            raise ValueError("for_seconds is how long the claim of once holds: give both")
        if self.at is not None and not _EARLIEST < self.at < _LATEST:
            raise ValueError("at must be a moment between the years 2000 and 2200")
        return self

    def message(self, contract: Sendable, traceparent: str | None) -> Message:
        """Return a task with these options, for the client; it continues the trace of the request."""
        return Message(
            contract,
            queue=self.queue,
            id=self.id,
            priority=self.priority,
            delay=_duration(self.delay_seconds),
            at=self.at,
            expires=_duration(self.expires_seconds),
            deadline=_duration(self.deadline_seconds),
            once=self.once,
            for_=_duration(self.for_seconds),
            traceparent=traceparent,
        )


class SingleOptions(Options):
    """Say how the one task of a request is to be sent."""

    overflow: Literal["reject", "shed"] | None = Field(
        None, description="What a full queue does, instead of its own policy; a request never waits for room."
    )
    batch: BatchId | None = Field(None, description="The open batch that it belongs to.")
    track: bool = Field(False, description="Keep its state and its result for a day after it ended.")

    @model_validator(mode="after")
    def _tracked_alone(self) -> Self:
        if self.track and self.batch is not None:
            raise ValueError("a batch keeps the results of its tasks: give track or batch, not both")
        return self


class Line(Options):
    """Hold one task of a stream: its kind, the fields of its contract, and how it is to be sent."""

    kind: str
    task: dict[str, Any]


_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def read_query(model: type[Query], query: bytes) -> Query:
    """Return the options of a request's query. Raises `Refusal`."""
    try:
        return model.model_validate(dict(QueryParams(query)))
    except ValidationError as error:
        raise bad_fields(error.errors(include_input=False), what="this request does not fit") from None
