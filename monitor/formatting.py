"""Write figures as a person reads them: short, and a dash for what is not known."""

from datetime import UTC, datetime

UNKNOWN = "-"


def count(number: int | None) -> str:
    """Write a number with its thousands apart."""
    return UNKNOWN if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """Write a length of time in the units that fit: `0.4 ms`, `35 ms`, `1.2 s`, `3 m 20 s`, `2 d 3 h`."""
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


def rate(per_second: float | None) -> str:
    """Write tasks a second, or a minute where they are few."""
    if per_second is None:
        return UNKNOWN
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 or not per_second else f"{per_second * 60:.1f}/min"


def share(part: float | None) -> str:
    """Write a share of one in per cent."""
    return UNKNOWN if part is None else f"{part:.0%}"


def moment(ms: int | None) -> str:
    """Write a time (ms since the epoch) in UTC, to the second."""
    return UNKNOWN if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def sentence(words: str) -> str:
    """Write words as a sentence: a capital before, a stop behind."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '?', '!')) else '.'}"


def plain(text: str) -> str:
    """Return a text of others with every character that would steer a terminal or break a line replaced."""
    return "".join(character if character.isprintable() else "?" for character in text)
