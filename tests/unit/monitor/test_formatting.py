"""Figures are written short, and drawn over the last hour."""

import pytest

from millpond.broker.stats.history import Sample
from millpond.monitor.formatting import (
    as_sentence,
    format_count,
    format_duration,
    format_rate,
    format_share,
    format_time,
)
from millpond.monitor.pages import sparkline
from millpond.monitor.pages.limit_forms import parse_limits
from millpond.tasks.durations import parse_milliseconds
from millpond.tasks.errors import BadInput


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.035, "35 ms"),
        (1.24, "1.2 s"),
        (59.99, "60.0 s"),
        (200, "3 m 20 s"),
        (7_260, "2 h 1 m"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_length_of_time_has_the_units_that_fit(seconds: float | None, words: str) -> None:
    """From a fraction of a millisecond to days, in two parts at most."""
    assert format_duration(seconds) == words


def test_rates_counts_shares_and_moments() -> None:
    """A rare event is shown by the minute, and an unknown value is a dash."""
    assert [format_rate(r) for r in (None, 0.0, 0.05, 2.5, 1234.0)] == [
        "-",
        "0.0/s",
        "3.0/min",
        "2.5/s",
        "1,234/s",
    ]
    assert (format_count(1_234_567), format_share(0.876), format_share(None)) == ("1,234,567", "88%", "-")
    assert (format_time(0), format_time(None)) == ("1970-01-01 00:00:00 UTC", "-")


def test_the_last_hour_is_drawn_a_bar_a_minute() -> None:
    """The highest bar fills the drawing, an hour ago is left, a counter that began anew draws nothing."""
    hour = 3_600_000
    history = [Sample(at, {"n": n}) for at, n in ((1, 0), (30_000, 60), (hour - 1, 90), (hour, 10))]
    assert sparkline.level_bars(history, "n", now_ms=hour) == "M1,24V8.3M119,24V1.0"
    assert sparkline.rate_bars(history, "n", now_ms=hour) == "M1,24V1.0M119,24V12.0"
    assert (sparkline.level_bars([], "n", now_ms=hour), sparkline.rate_bars([], "n", now_ms=hour)) == ("", "")


def test_limits_are_read_as_people_write_them() -> None:
    """Numbers, times and rates; an empty field takes a limit back; nonsense is told by its name."""
    written = {"bound": "1,000", "rate": "90/m", "burst": None, "overflow": "shed"}
    assert parse_limits(written) == {"bound": 1000, "rate": 1.5, "burst": None, "overflow": "shed"}
    assert parse_limits({"bound": "30s"}) == {"bound": "30s"}
    for name, text in (
        ("bound", "0"),
        ("in_flight", "1.5"),
        ("overflow", "drop"),
        ("rate", "-1/s"),
        ("burst", "0.5"),
        ("burst", "nan"),
    ):
        with pytest.raises(BadInput, match=name.replace("_", " ")):
            parse_limits({name: text})


def test_words_become_a_sentence() -> None:
    """A capital before and one stop behind, whatever the words end with; the rest is as it was."""
    assert as_sentence("unclear") == "Unclear."
    assert as_sentence("65 wait, and p99 is 2 s") == "65 wait, and p99 is 2 s."
    assert [as_sentence("look at Redis."), as_sentence("")] == ["Look at Redis.", "."]


def test_a_length_of_time_beyond_all_numbers_is_refused_in_words() -> None:
    """As it is typed into a search of dead letters."""
    with pytest.raises(BadInput, match="is no duration"):
        parse_milliseconds("9" * 400 + "d")
