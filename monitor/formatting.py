"""Format numbers, durations, rates and times as short texts for people. A dash means an unknown value."""

from datetime import UTC, datetime

UNKNOWN = "-"


def format_count(number: int | None) -> str:
    """Return a number with commas between thousands."""
    return UNKNOWN if number is None else f"{number:,}"


def format_duration(seconds: float | None) -> str:
    """Return a duration in units that fit its size: `0.4 ms`, `35 ms`, `1.2 s`, `3 m 20 s`, `2 d 3 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def format_rate(per_second: float | None) -> str:
    """Return a rate a second as `120/s` or `1.5/s`, a rate under one a second as `30.0/min`."""
    if per_second is None:
        return UNKNOWN
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 or not per_second else f"{per_second * 60:.1f}/min"


def format_share(share: float | None) -> str:
    """Return a share, from 0 to 1, in per cent."""
    return UNKNOWN if share is None else f"{share:.0%}"


def format_time(ms: int | None) -> str:
    """Return a time (ms since the epoch) in UTC, to the second."""
    return UNKNOWN if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def as_sentence(words: str) -> str:
    """Return words as a sentence: with a capital letter, and a full stop unless they have an end mark."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '?', '!')) else '.'}"
