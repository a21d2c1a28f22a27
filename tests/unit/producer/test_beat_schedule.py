"""The times of a Celery application's beat_schedule, and the entries that are refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab, schedule

from millpond.producer.beat_schedule import BeatEntry, read_entries
from millpond.tasks.errors import SettingsError


class Tide(schedule):
    """A schedule of somebody's own."""


def entry(timing: Any, **conf: Any) -> BeatEntry:
    """Return the one entry of an application with this schedule."""
    app = Celery("shop", broker="memory://", backend="disabled", set_as_current=False)
    app.conf.update(
        beat_schedule={"it": {"task": "shop.it", "schedule": timing}}, result_expires=None, **conf
    )
    return read_entries(app)["it"]


def ms(text: str) -> int:
    """Return a time, UTC unless it says another, in ms since the epoch."""
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


@pytest.mark.parametrize("timing", [90, 90.0, timedelta(seconds=90), schedule(90)])
def test_a_period_counts_from_the_epoch(timing: Any) -> None:
    """A number of seconds, a timedelta and a schedule are due at the same times in every process."""
    it = entry(timing)
    assert (it.last_due(100_000), it.next_due(100_000)) == (90_000, 180_000)
    assert it.missed_between(0, 450_000) == 4


@pytest.mark.parametrize(
    ("timing", "before", "after"),
    [
        (crontab("30", "3"), "2026-11-27T03:30", "2026-11-28T03:30"),
        (crontab("*/20"), "2026-11-27T21:40", "2026-11-27T22:00"),
        (crontab("0", "0", day_of_week="mon"), "2026-11-23T00:00", "2026-11-30T00:00"),
        (crontab("0", "0", day_of_month="31"), "2026-10-31T00:00", "2026-12-31T00:00"),
        # Both of the fields for days hold: a Friday that is the 13th.
        (crontab("0", "0", day_of_week="fri", day_of_month="13"), "2026-11-13T00:00", "2027-08-13T00:00"),
        (crontab("0", "0", day_of_month="29", month_of_year="2"), "2024-02-29T00:00", "2028-02-29T00:00"),
        (crontab("0", "0", "fri", "29", "2"), "2008-02-29T00:00", "2036-02-29T00:00"),
    ],
)
def test_a_crontab_is_due_when_celery_has_it(timing: crontab, before: str, after: str) -> None:
    """The last time up to 21:50 on 2026-11-27, and the first after it."""
    it, now = entry(timing), ms("2026-11-27T21:50")
    assert (it.last_due(now), it.next_due(now)) == (ms(before), ms(after))
    assert it.missed_between(ms(before), ms(after)) == 0
    assert it.last_due(ms(after)) == ms(after)


def test_a_crontab_is_in_the_time_zone_of_its_application() -> None:
    """In summer and in winter at the same time of the day there."""
    it = entry(crontab("0", "3"), timezone="Europe/Berlin")
    assert it.next_due(ms("2026-07-01T00:00")) == ms("2026-07-01T03:00+02:00")
    assert it.next_due(ms("2026-12-01T00:00")) == ms("2026-12-01T03:00+01:00")


@pytest.mark.parametrize(
    ("timing", "said"),
    [
        (Tide(60), "not Tide: leave this entry to `celery beat`"),
        (0.1, "a period is a second at least"),
    ],
)
def test_another_entry_is_refused_in_words(timing: Any, said: str) -> None:
    """The error names the entry and the remedy."""
    with pytest.raises(SettingsError, match=said) as refusal:
        entry(timing)
    assert "'it'" in str(refusal.value)
