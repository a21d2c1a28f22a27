"""The types of pydantic fields that are written by people: durations, rates and bounds, in one grammar."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from millpond.tasks import durations

#: Seconds, more than none, however they are written.
Seconds = Annotated[float, BeforeValidator(durations.seconds), Field(gt=0)]

#: Tasks a second, more than none.
Rate = Annotated[float, BeforeValidator(durations.per_second)]

#: Messages, or seconds as a text: `30s`.
Bound = Annotated[int | str, BeforeValidator(durations.queue_bound)]


def _period(value: Any) -> timedelta:
    return timedelta(seconds=durations.seconds(value))


#: The time between two firings of a schedule; written back as a person would.
Period = Annotated[
    timedelta,
    BeforeValidator(_period),
    PlainSerializer(lambda period: durations.in_units(period.total_seconds())),
]
