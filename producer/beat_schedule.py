"""The `beat_schedule` of a Celery application, for `millpond scheduler --app`.

Its schedules may be numbers of seconds, `timedelta` and `crontab`. A period is counted from the epoch, so
that any number of schedulers agree on it; `celery beat` counts it from its last run. A `crontab` is in the
time zone of the application. As in Celery, a day is due if both of its fields for days match.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.schedules import crontab, maybe_schedule, schedule

from millpond.tasks.durations import format_seconds
from millpond.tasks.errors import SettingsError
from millpond.tasks.schedule import DueTimes
from millpond.tasks.send_options import SendOptions

#: Every `crontab` is due at least once in this many days: a Friday that is 29 February may be 40 years away.
_MOST_DAYS = 41 * 366
#: The most characters of an entry's name in the id of its tasks.
_NAME_LENGTH = 120


@dataclass(frozen=True)
class BeatEntry(DueTimes):
    """One entry: a signature, and Celery's schedule of it, a `schedule` or a `crontab`."""

    sendable: Signature
    celery_schedule: Any
    options: SendOptions

    @property
    def kind(self) -> str:
        """The name of the task."""
        return str(self.sendable.task)

    @property
    def timing(self) -> str:
        """The timing as text for people: `every 30 s`, or the fields and the time zone of a `crontab`."""
        if (period := self._period_ms) is not None:
            return f"every {format_seconds(period / 1000)}"
        cron = self.celery_schedule
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return " ".join(str(getattr(cron, f"_orig_{name}")) for name in fields) + f" {cron.tz}"

    @property
    def _period_ms(self) -> int | None:
        schedule = self.celery_schedule
        return None if isinstance(schedule, crontab) else int(schedule.run_every / timedelta(milliseconds=1))

    def _due_times(self, at_ms: int, *, backwards: bool = False) -> Iterator[int]:
        cron = self.celery_schedule
        day = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(cron.tz).date()
        hours, minutes = sorted(cron.hour, reverse=backwards), sorted(cron.minute, reverse=backwards)
        for _ in range(_MOST_DAYS):
            if (
                day.month in cron.month_of_year
                and day.day in cron.day_of_month
                and day.isoweekday() % 7 in cron.day_of_week
            ):
                for hour in hours:
                    for minute in minutes:
                        due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=cron.tz)
                        ms = int(due.timestamp()) * 1000
                        if ms < at_ms if backwards else ms > at_ms:
                            yield ms
            day += timedelta(days=-1 if backwards else 1)


def read_entries(app: Celery) -> dict[str, BeatEntry]:
    """Return the entries of an application's `beat_schedule`, by name.

    Raises `SettingsError` for a schedule of another type, and for a period of less than a second.
    """
    app.finalize(auto=True)
    app.loader.import_default_modules()  # these modules may call `add_periodic_task`
    entries = {}
    for name, entry in {**_cleanup_entry(app), **app.conf.beat_schedule}.items():
        timing = maybe_schedule(entry["schedule"], entry.get("relative", False), app=app)
        if type(timing) not in (schedule, crontab):
            raise SettingsError(
                f"beat_schedule {name!r}: millpond scheduler knows numbers of seconds, timedelta and "
                f"crontab, not {type(timing).__name__}: leave this entry to `celery beat`"
            )
        timing.app = app
        if not isinstance(timing, crontab) and timing.run_every < timedelta(seconds=1):
            raise SettingsError(f"beat_schedule {name!r}: a period is a second at least")
        options = {k: v for k, v in (entry.get("options") or {}).items() if k != "task_id"}
        signature = app.signature(
            entry["task"],
            args=tuple(entry.get("args") or ()),
            kwargs=dict(entry.get("kwargs") or {}),
            **options,
        )
        queue = options.get("queue") or app.amqp.router.route({}, entry["task"]).get("queue")
        entries[_shorten_name(str(name))] = BeatEntry(
            signature, timing, SendOptions(queue=getattr(queue, "name", queue))
        )
    return entries


def _cleanup_entry(app: Celery) -> dict[str, Any]:
    """Return the entry that `celery beat` adds if a result backend does not expire results, or {}."""
    if not app.conf.result_expires or app.backend.supports_autoexpire:
        return {}
    schedule = crontab("0", "4", "*")
    entry = {"task": "celery.backend_cleanup", "schedule": schedule, "options": {"expires": 12 * 3600}}
    return {"celery.backend_cleanup": entry}


def _shorten_name(name: str) -> str:
    """Return a name that fits into a task's id: the end of a long one is replaced by a hash."""
    if len(name) <= _NAME_LENGTH:
        return name
    return f"{name[:_NAME_LENGTH]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
