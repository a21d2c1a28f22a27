"""The settings of a schedule: the task to send, and the times at which it is due.

    [schedule.nightly]
    kind = "files.compress"
    fields = { source = "/srv/app.log", target = "/srv/app.log.zst" }
    cron = "30 3 * * *"
    timezone = "Europe/Berlin"

The times do not depend on the process that computes them, so any number of schedulers agree. The periods of
`every` begin at the Unix epoch. `cron` has the meaning of Debian's cron, also at changes to and from daylight
saving time. The schedules of a Celery application (producer/beat_schedule.py) share `DueTimes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from millpond.tasks.durations import format_seconds
from millpond.tasks.field_types import Period, SettingsTable
from millpond.tasks.send_options import SendOptions, option_descriptions

#: The most missed periods that are counted of a cron expression.
MOST_MISSED = 10_000


class DueTimes(ABC):
    """The times at which a task is due, in ms since the epoch.

    They are those of a period that is counted from the epoch, or else those that `_due_times` yields.
    """

    @property
    @abstractmethod
    def _period_ms(self) -> int | None:
        """The period in ms, None for a cron expression."""

    @abstractmethod
    def _due_times(self, at_ms: int, *, backwards: bool = False) -> Iterator[int]:
        """Yield the due times of a cron after a time, or before it if `backwards`, the nearest first."""

    def next_due(self, at_ms: int) -> int:
        """Return the first due time after `at_ms`."""
        if (period := self._period_ms) is not None:
            return (at_ms // period + 1) * period
        return next(self._due_times(at_ms))

    def last_due(self, at_ms: int) -> int:
        """Return the last due time at or before `at_ms`."""
        if (period := self._period_ms) is not None:
            return at_ms // period * period
        return next(self._due_times((at_ms // 1_000 + 1) * 1_000, backwards=True))  # due at whole seconds

    def missed_between(self, last_ms: int, due_ms: int) -> int:
        """Return the number of due times between two, both excluded; of a cron at most `MOST_MISSED`."""
        if (period := self._period_ms) is not None:
            return max(0, (due_ms - last_ms - 1) // period)
        missed = takewhile(lambda time_ms: time_ms < due_ms, self._due_times(last_ms))
        return sum(1 for _ in islice(missed, MOST_MISSED))


class ScheduleSettings(SettingsTable, DueTimes):
    """One schedule: a task that is sent `every` period, or at the times of `cron` in `timezone`."""

    kind: str = Field(description="The kind of the task.")
    fields: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="The fields of its contract."
    )
    queue: str | None = Field(None, description=option_descriptions()["queue"])
    priority: int = Field(0, ge=0, le=9, description=option_descriptions()["priority"])
    expires: Period | None = Field(None, description=option_descriptions()["expires"])
    every: Period | None = Field(None, description="The time between two tasks; either this or `cron`.")
    cron: str | None = Field(None, description="When it is due, as Debian's cron has it: `30 3 * * 1-5`.")
    timezone: str = Field("UTC", description="The time zone of `cron`.")

    @model_validator(mode="after")
    def _check_timing(self) -> "ScheduleSettings":
        """Raise `ValueError` unless there is one of `every` and `cron`, valid, and a known time zone."""
        if (self.every is None) == (self.cron is None):
            raise ValueError("say when: either every or cron")
        if self.every is not None and self.every < timedelta(seconds=1):
            raise ValueError("a period is a second at least")
        try:
            _ = self._zone
        except (LookupError, OSError, ValueError):
            raise ValueError(f"no time zone is named {self.timezone!r} here, as in Europe/Berlin") from None
        if self.cron is not None:
            self._check_cron(self.cron)
        return self

    def _check_cron(self, expression: str) -> None:
        """Raise `ValueError` for a cron expression that is malformed or never due."""
        from cronsim import CronSimError

        try:
            self.next_due(0)
        except (CronSimError, StopIteration):
            raise ValueError(
                f"{expression!r} is no time of cron's, or never comes: as in '30 3 * * 1-5'"
            ) from None

    @property
    def sendable(self) -> tuple[str, dict[str, Any]]:
        """The kind of the task and its fields, as `Client.send` takes them."""
        return self.kind, self.fields

    @property
    def options(self) -> SendOptions:
        """The options of sending the task."""
        return SendOptions(queue=self.queue, priority=self.priority, expires=self.expires)

    @property
    def timing(self) -> str:
        """The timing as a text for people: `every 1h`, or the `cron` and its time zone."""
        if self.every is not None:
            return f"every {format_seconds(self.every.total_seconds())}"
        return f"{self.cron} {self.timezone}"

    @property
    def _period_ms(self) -> int | None:
        return None if self.every is None else self.every // timedelta(milliseconds=1)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def _due_times(self, at_ms: int, *, backwards: bool = False) -> Iterator[int]:
        from cronsim import CronSim

        start = datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(self._zone)
        for due in CronSim(self.cron or "", start, reverse=backwards):
            yield int(due.timestamp()) * 1000
