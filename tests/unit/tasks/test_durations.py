"""Durations, rates and bounds have one grammar everywhere."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

import millpond
from millpond.monitor.pages.limit_forms import parse_limits
from millpond.producer.gateway.options import SendOptions
from millpond.tasks.durations import (
    format_seconds,
    parse_bound,
    parse_milliseconds,
    parse_rate,
    parse_seconds,
)
from millpond.tasks.errors import BadInput, BadQuantity
from millpond.tasks.pools import Queue
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings

DURATIONS: list[tuple[Any, float]] = [
    ("500ms", 0.5),
    ("30s", 30),
    ("5m", 300),
    ("1.5h", 5_400),
    ("1d", 86_400),
    ("2m30s", 150),
    ("1d 2h 3m 4s 5ms", 93_784.005),
    (" 90 s ", 90),
    ("90", 90),
    ("0.25", 0.25),
    (".5s", 0.5),
    ("1e2", 100),
    (7, 7),
    (0.5, 0.5),
    (timedelta(minutes=2), 120),
]

NO_DURATIONS: list[Any] = [
    "", "soon", "s", "5x", "s5", "30s2m", "1h1h", "-5s", "1,5h", "5 S", "1w", "1h30", "\u0665s", "nan", "inf",
    "9" * 400 + "d", "1e400", "101y", "36501d", True, None, [], -1, float("nan"), float("inf"), timedelta(-1),
    10**400,
]  # fmt: skip

RATES: list[tuple[Any, float]] = [
    ("50", 50),
    ("50/s", 50),
    ("3000/m", 50),
    ("3.0/min", 0.05),
    ("36/h", 0.01),
    ("8640 / d", 0.1),
    ("1.2e-05", 1.2e-05),
    (50, 50),
    (0.5, 0.5),
]

NO_RATES: list[Any] = ["", "fast", "0", "0/s", "-1/s", "5/w", "50/", "/s", "50 s", "50/2s", "nan", "inf",
                       True, None, 0, -3, float("inf"), "1e400", 10**400]  # fmt: skip

BOUNDS: list[tuple[Any, int | str]] = [
    ("5000", 5_000),
    (5_000, 5_000),
    ("1,000", 1_000),
    ("5_000", 5_000),
    ("30s", "30s"),
    ("500ms", "0.5s"),
    ("2m30s", "150s"),
    (timedelta(seconds=5), "5s"),
]

NO_BOUNDS: list[Any] = ["", "0", "0s", "5.5", "-3", -3, 0, True, None, "1e3", "many", "30" * 10]


@pytest.mark.parametrize(("written", "meant"), DURATIONS)
def test_a_duration_is_read(written: object, meant: float) -> None:
    """A duration has one unit or several, or is a number of seconds, or a `timedelta`."""
    assert parse_seconds(written) == pytest.approx(meant)
    assert parse_milliseconds(written) == round(meant * 1000)


@pytest.mark.parametrize("written", NO_DURATIONS, ids=lambda value: f"{value!r:.20}")
def test_what_is_no_duration_is_refused_with_an_example(written: object) -> None:
    """The error is one line with the given text and the right form."""
    with pytest.raises(
        BadQuantity, match=r"no duration: write a duration, as in 500ms, 30s, 2m30s"
    ) as refused:
        parse_seconds(written)
    assert len(str(refused.value)) < 200
    assert isinstance(refused.value, BadInput)


@pytest.mark.parametrize(("written", "meant"), RATES)
def test_a_rate_is_read(written: object, meant: float) -> None:
    """A rate is in tasks a second, minute, hour or day. A number alone is tasks a second."""
    assert parse_rate(written) == pytest.approx(meant)


@pytest.mark.parametrize("written", NO_RATES, ids=lambda value: f"{value!r:.20}")
def test_what_is_no_rate_is_refused_with_an_example(written: object) -> None:
    """The error is one line with the given text and the right form."""
    with pytest.raises(BadQuantity, match=r"no rate: write a rate, as in 50/s, 3000/m"):
        parse_rate(written)


@pytest.mark.parametrize(("written", "meant"), BOUNDS)
def test_a_bound_is_read(written: object, meant: int | str) -> None:
    """A bound is a number of messages, or a duration, which becomes a text in seconds."""
    assert parse_bound(written) == meant


@pytest.mark.parametrize("written", NO_BOUNDS, ids=lambda value: f"{value!r:.20}")
def test_what_is_no_bound_is_refused_with_an_example(written: object) -> None:
    """The error is one line with the given text and the right form."""
    with pytest.raises(BadQuantity, match="no bound: write messages, as in 5000, or a time"):
        parse_bound(written)


@pytest.mark.parametrize(
    ("length", "written"),
    [
        (150, "2m30s"),
        (86_400, "1d"),
        (0.5, "500ms"),
        (0, "0s"),
        (90_061.001, "1d1h1m1s1ms"),
        (5_400, "1h30m"),
    ],
)
def test_a_duration_is_written_as_it_is_read(length: float, written: str) -> None:
    """A duration is written with the largest unit first, and is the same when it is read again."""
    assert format_seconds(length) == written
    assert parse_seconds(written) == length


@pytest.mark.parametrize("written", ["2m30s", "150", 150, "2.5m", timedelta(seconds=150)], ids=str)
def test_the_grammar_is_the_same_everywhere(written: Any) -> None:
    """Settings, tables of pools, schedules, the gateway and forms read one grammar."""
    assert Settings(drain_seconds=written).drain_seconds == 150
    assert Queue(lease_seconds=written).lease_seconds == 150
    assert ScheduleSettings(kind="x", every=written).every == timedelta(seconds=150)
    assert SendOptions(delay_seconds=written).delay_seconds == 150
    assert Queue(rate="3000/m").rate == parse_limits({"rate": "3000/m"})["rate"] == 50
    assert Queue(bound="2m30s").bound == parse_limits({"bound": "2m30s"})["bound"] == "150s"


def test_the_gateway_does_not_repeat_what_it_refuses() -> None:
    """The gateway's error has the field and the grammar, and not the value, which may be a secret."""
    with pytest.raises(ValidationError) as refused:
        SendOptions(delay_seconds="hunter2")  # type: ignore[arg-type]
    assert "500ms" in str(refused.value.errors(include_input=False))
    assert "hunter2" not in str(refused.value.errors(include_input=False))


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "--once", "--every", "soon"],
        ["dead", "list", "email", "--since", "soon"],
        ["dead", "list", "email", "--before", "soon"],
        ["queue", "set", "email", "--rate", "soon"],
        ["queue", "set", "email", "--bound", "soon"],
    ],
    ids=" ".join,
)
def test_options_of_commands_read_it(
    arguments: list[str], url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that is no duration, rate or bound ends the command with one line and the right form."""
    monkeypatch.setenv("MILLPOND_BROKER_URL", url)
    assert millpond.main(arguments) == 2
    shown = capsys.readouterr().err
    assert "'soon' is no " in shown
    assert shown.count("\n") == 1


def test_a_health_check_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`millpond health` takes any duration, and refuses another text in the same words."""
    assert millpond.main(["health", "nobody", "--within", "2m30s"]) == 1
    assert millpond.main(["health", "nobody", "--within", "soon"]) == 2
    assert "'soon' is no duration" in capsys.readouterr().err
