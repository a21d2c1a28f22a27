"""Read durations, rates and bounds: one grammar for settings, options of commands, the gateway and pages.

    duration   500ms, 30s, 1.5h, 1d, 2m30s; a bare number is seconds; a `timedelta`
    rate       50, 50/s, 3000/m, 5/h, 100/d; a bare number is per second
    bound      5000 messages, or a duration with its unit: as many messages as the pool clears in that time

Light on purpose: a health check, which runs every few seconds, has no time to load pydantic.
"""

import math
import re
from datetime import timedelta

from millpond.tasks.errors import BadQuantity

DURATION = "a duration, as in 500ms, 30s, 2m30s, 1.5h or 1d"
RATE = "a rate, as in 50/s, 3000/m or 5/h"
BOUND = "messages, as in 5000, or a time, as in 30s or 5m"

#: The longest valid duration: longer than any real wait, and within the range of `timedelta` and `datetime`.
LONGEST_SECONDS = 100 * 365 * 86_400.0

#: A duration in Python: a `timedelta`, a number of seconds, or a text as in 1.5h.
Duration = timedelta | float | str

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_UNITS = ("d", "h", "m", "s", "ms")
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}\s*)?" for unit in _UNITS))
_BARE = re.compile(rf"(?:{_NUMBER})(?:[eE][+-]?[0-9]+)?")
_RATE = re.compile(rf"(?P<count>{_BARE.pattern})\s*(?:/\s*(?P<unit>s|m|min|h|d))?")


def parse_seconds(value: object) -> float:
    """Return a duration as seconds, from 0 to `LONGEST_SECONDS`. Raises `BadQuantity`."""
    match value:
        case timedelta():
            seconds = value.total_seconds()
        case bool():
            seconds = math.nan
        case int() | float():
            seconds = float(value) if abs(value) <= LONGEST_SECONDS else math.inf
        case str():
            seconds = _parse_text(value.strip())
        case _:
            seconds = math.nan
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise BadQuantity(f"{_show_value(value)} is no duration: write {DURATION}")
    return seconds


def to_timedelta(value: Duration, argument_name: str) -> timedelta:
    """Return a duration as a `timedelta`. Raises `BadQuantity`, which begins with the argument's name.

    A value that is a `timedelta` is returned as it is, also a negative one.
    """
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=parse_seconds(value))
    except BadQuantity as error:
        raise BadQuantity(f"{argument_name}: {error}") from None


def parse_milliseconds(value: object) -> int:
    """Return a duration as whole milliseconds. Raises `BadQuantity`."""
    return round(parse_seconds(value) * 1000)


def parse_rate(value: object) -> float:
    """Return a rate as tasks per second, above 0. Raises `BadQuantity`."""
    rate = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        rate = float(value) if abs(value) < 1e300 else math.inf
    elif isinstance(value, str) and (match := _RATE.fullmatch(value.strip())):
        rate = float(match["count"]) / _SECONDS[match["unit"] or "s"]
    if not 0 < rate < math.inf:
        raise BadQuantity(f"{_show_value(value)} is no rate: write {RATE}")
    return rate


def parse_bound(value: object) -> int | str:
    """Return a bound as the broker has it: messages as an `int`, or a text of seconds (`30s`).

    Raises `BadQuantity`.
    """
    text = re.sub(r"(?<=\d)[,_](?=\d)", "", str(value).strip())  # 5,000 and 5_000 are 5000
    if text.isdecimal() and 0 < len(text) < 16 and int(text) > 0:
        return int(text)
    if not isinstance(value, bool) and not _BARE.fullmatch(text):
        try:
            if (seconds := parse_seconds(value if isinstance(value, timedelta) else text)) >= 0.001:
                return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
        except BadQuantity:
            pass
    raise BadQuantity(f"{_show_value(value)} is no bound: write {BOUND}")


def format_seconds(seconds: float) -> str:
    """Return seconds in the grammar of this module, the largest unit first: `2m30s`, `1d`, `500ms`, `0s`."""
    milliseconds, parts = round(seconds * 1000), []
    for unit in _UNITS:
        count, milliseconds = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def _parse_text(text: str) -> float:
    """Return the seconds that a text means; NaN if it is no duration."""
    if _BARE.fullmatch(text):
        return float(text)
    parts = _PARTS.fullmatch(text)
    if not text or not parts:
        return math.nan
    return sum(float(count) * _SECONDS[unit] for unit, count in parts.groupdict().items() if count)


def _show_value(value: object) -> str:
    return str(value) if isinstance(value, timedelta) else f"{value!r:.80}"
