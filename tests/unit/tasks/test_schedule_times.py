"""The times at which a periodic task is due."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from millpond.tasks.schedule import ScheduleSettings


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_period_counts_from_the_epoch() -> None:
    """The periods of `every` begin at the epoch, so that all schedulers agree on them."""
    hourly = ScheduleSettings(kind="k", every="1h")
    at = ms("2026-03-01T10:20:30")
    assert hourly.last_due(at) == ms("2026-03-01T10:00:00")
    assert hourly.next_due(at) == ms("2026-03-01T11:00:00")
    assert hourly.last_due(ms("2026-03-01T11:00:00")) == ms("2026-03-01T11:00:00")
    assert hourly.next_due(ms("2026-03-01T11:00:00")) == ms("2026-03-01T12:00:00")


def test_cron_is_read_in_its_time_zone_through_the_change_of_clocks() -> None:
    """`30 3 * * *` in Berlin is 2:30 UTC in winter and 1:30 in summer, once a day."""
    nightly = ScheduleSettings(kind="k", cron="30 3 * * *", timezone="Europe/Berlin")
    times, at = [], ms("2026-03-27T12:00:00")
    for _ in range(3):
        at = nightly.next_due(at)
        times.append(at)
    assert times == [ms("2026-03-28T02:30:00"), ms("2026-03-29T01:30:00"), ms("2026-03-30T01:30:00")]
    assert [nightly.last_due(at + 5) for at in times] == times
    assert [nightly.last_due(at) for at in times] == times
    assert nightly.last_due(times[2] - 1) == times[1]


@pytest.mark.parametrize("timing", [{"every": "15m"}, {"cron": "*/15 * * * *"}])
def test_missed_periods_are_counted(timing: dict[str, str]) -> None:
    """The missed periods are those between the last one that was sent and the one that is due."""
    quarterly = ScheduleSettings(kind="k", **timing)
    assert quarterly.missed_between(ms("2026-03-01T10:00:00"), ms("2026-03-01T10:15:00")) == 0
    assert quarterly.missed_between(ms("2026-03-01T10:00:00"), ms("2026-03-01T11:00:00")) == 3
    assert quarterly.missed_between(ms("2026-03-01T10:07:00"), ms("2026-03-01T10:15:00")) == 0


@pytest.mark.parametrize(
    ("timing", "said"),
    [
        ({}, "either every or cron"),
        ({"every": "1h", "cron": "* * * * *"}, "either every or cron"),
        ({"every": "soon"}, "no duration"),
        ({"every": "0s"}, "a second at least"),
        ({"cron": "61 * * * *"}, "no time of cron's"),
        ({"cron": "0 0 31 2 *"}, "never comes"),
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "no time zone"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "no time zone"),
    ],
)
def test_a_wrong_timing_is_refused(timing: dict[str, str], said: str) -> None:
    """A wrong timing is refused with the reason when the settings are read."""
    with pytest.raises(ValidationError, match=said):
        ScheduleSettings(kind="k", **timing)
