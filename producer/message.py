"""The messages of a producer: their options are checked, then they are composed for the broker."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from millpond.broker.outgoing import Outgoing, compose
from millpond.tasks import durations
from millpond.tasks.contract import Contract, contract_of, job_from_fields, missing_kind_error
from millpond.tasks.durations import Duration
from millpond.tasks.middleware import Sending
from millpond.tasks.redaction import hides_fields, redact
from millpond.tasks.send_options import SendOptions
from millpond.tasks.wire_fields import is_carried_unchanged, wire_fields

#: The most characters of a queue, an id or a unique key, which become part of keys in Redis.
NAME_LENGTH = 200

_MS = timedelta(milliseconds=1)

#: The end of the year 9999, the last that the dates in a message can have.
_LATEST_MS = 253_402_300_800_000


class Call:
    """A task of a Celery application: its name, and its arguments, which must be JSON.

    If the settings name the application (`app`), its routes and serializers apply. Otherwise name a queue.
    """

    def __init__(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        self.kind, self.args, self.kwargs = name, args, kwargs

    def __repr__(self) -> str:
        return f"Call({self.kind!r}, …)"


#: A task that can be sent: a contract, the name of a kind and its fields, or a task of a Celery application,
#: as a call or as its signature.
Sendable = Contract | tuple[str, Mapping[str, Any]] | Call | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message(SendOptions):
    """A contract and its options of sending, for `send_many`: `Message(Square(n=3), once="three")`."""

    contract: Sendable

    def __post_init__(self) -> None:
        """Check the options, and convert durations to `timedelta`. Raises `ValueError`, `TypeError`."""
        if self.delay is not None and self.at is not None:
            raise ValueError("give delay or at, not both")
        if self.deadline is not None and self.expires is not None:
            raise ValueError(
                "give deadline or expires, not both: a deadline is an expiry that the queue is asked about"
            )
        if not isinstance(self.priority, int):
            raise TypeError(f"priority is a whole number from 0 to 9, not {self.priority!r}")
        if not 0 <= self.priority <= 9:
            raise ValueError(f"priority is {self.priority}: it runs from 0, which leaves first, to 9")
        if self.at is not None and not isinstance(self.at, datetime):
            raise ValueError(
                f"at: {self.at!r:.80} is no moment: give a datetime with a time zone, or a duration as delay"
            )
        for name in ("delay", "expires", "deadline", "for_"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, datetime | timedelta):
                object.__setattr__(self, name, durations.to_timedelta(value, name))
        if self.for_ is not None and (self.once is None or durations.to_timedelta(self.for_, "for_") < _MS):
            raise ValueError(
                "for_ is how long the claim of once=… holds: give both, and at least a millisecond"
            )
        for name, value in (("queue", self.queue), ("id", self.id), ("once", self.once)):
            if value is None:
                continue
            if not isinstance(value, str):
                raise TypeError(f"{name} is a text, not {value!r}: write it as str(…)")
            if not 0 < len(value) <= NAME_LENGTH:
                raise ValueError(f"{name} must have 1 to {NAME_LENGTH} characters, this has {len(value)}")
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise ValueError(f"{name} is {value!r}: half a surrogate pair is no text. Name it otherwise")
        if self.id is not None and not self.id.isprintable():  # a worker would make it a dead letter
            raise ValueError(f"id is {self.id!r}, which has characters that cannot be shown: leave them out")

    @property
    def claim_ms(self) -> int:
        """The time in ms for which the unique key `once` is kept, 0 for as long as the task lives."""
        return 0 if self.for_ is None else durations.to_timedelta(self.for_, "for_") // _MS

    def times_ms(self, now_ms: int) -> tuple[int | None, int | None, int | None]:
        """Return the due time, the expiry and the deadline of the message, in ms since the epoch.

        Each is None if the message has none. A deadline is an expiry too. Raises `ValueError` as
        `_to_epoch_ms` does.
        """
        if self.delay is None and self.at is None and self.expires is None and self.deadline is None:
            return None, None, None
        deadline_ms = _to_epoch_ms(self.deadline, now_ms)
        expires_ms = deadline_ms if self.expires is None else _to_epoch_ms(self.expires, now_ms)
        return _to_epoch_ms(self.delay if self.at is None else self.at, now_ms), expires_ms, deadline_ms


def callback_message(callback: Sendable | Message) -> Message:
    """Return the callback of a batch as a message.

    It is sent once, when the batch completes. Raises `ValueError` for a message that has a time of its own
    (`delay`, `at`, `expires`, `deadline`) or `once`.
    """
    message = callback if isinstance(callback, Message) else Message(callback)
    for name in ("delay", "at", "expires", "deadline", "once"):
        if getattr(message, name) is not None:
            raise ValueError(
                f"then= takes no {name}: the task is sent once, as soon as the batch is complete. "
                "Send later tasks from its handler"
            )
    return message


def contract_from(sendable: Sendable) -> Contract:
    """Return a contract as it is, or the contract of a pair of a kind and its fields.

    Raises `UnknownKind` for an unknown kind or a contract without a kind, `BadContract` for fields that are
    not valid, and `TypeError` for anything else.
    """
    if isinstance(sendable, Contract):
        if not sendable.kind:
            raise missing_kind_error(type(sendable))
        return sendable
    if not isinstance(sendable, tuple | list) or len(sendable) != 2:
        raise TypeError(
            f"{sendable!r:.80} cannot be sent: give a contract, the name of a kind and its fields, a Call, "
            "or the signature of a Celery task"
        )
    kind, fields = sendable
    return job_from_fields(contract_of(kind), fields)


def compose_job(
    message: Message, sending: Sending, *, now_ms: int, after: Mapping[str, Any] | None = None
) -> Outgoing:
    """Compose the message of a contract or of a `Call` for the broker, after middleware has seen `sending`.

    `after` is the header of a batch callback. Fields of a contract that have their default are left out, so
    that a worker with an older contract accepts the rest. Raises `BadContract` for fields, and `TypeError` or
    `ValueError` for arguments of a call, that cannot be written as JSON.
    """
    job: Contract | Call = sending.job
    args, shown = tuple[Any, ...](), None
    if isinstance(job, Call):
        args, kwargs = job.args, job.kwargs
    else:
        kwargs = _json_fields(job)
        shown = redact(type(job), kwargs) if hides_fields(type(job)) else None
    due_ms, expires_ms, deadline_ms = message.times_ms(now_ms)
    return compose(
        job.kind,
        kwargs,
        args=args,
        queue=sending.queue,
        sent_at_ms=now_ms,
        id=sending.id,
        shown=shown,
        priority=message.priority,
        due_ms=due_ms,
        expires_ms=expires_ms,
        deadline_ms=deadline_ms,
        batch=sending.batch,
        after=after,
        traceparent=sending.traceparent,
        headers=sending.headers,
        claim=message.once,
        claim_ms=0 if message.for_ is None else message.claim_ms,
        ignore_result=not isinstance(job, Call),  # as a stock client sends it
    )


def _json_fields(contract: Contract) -> dict[str, Any]:
    """Return what `wire_fields` returns: for most contracts pydantic writes all fields at once."""
    if is_carried_unchanged(type(contract)):
        with suppress(ValueError):  # the error of `wire_fields` names the field
            return contract.model_dump(mode="json", exclude_defaults=True)
    return wire_fields(contract)


def _to_epoch_ms(when: Duration | datetime | None, now_ms: int) -> int | None:
    """Return a duration from now, or a time with a zone, as ms since the epoch. Return None for None.

    Raises `ValueError` for a time without a zone, and for one before 1970 or after the year 9999.
    """
    if when is None:
        return None
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(f"{when} has no time zone: a worker elsewhere would read it differently")
        text, epoch_ms = str(when), int(when.timestamp() * 1000)
    else:
        when = durations.to_timedelta(when, "a time")
        text, epoch_ms = f"{when} from now", now_ms + when // _MS
    if not 0 <= epoch_ms < _LATEST_MS:
        raise ValueError(f"{text} is before 1970 or after the year 9999")
    return epoch_ms
