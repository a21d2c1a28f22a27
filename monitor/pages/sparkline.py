"""Sparklines of the last hour: bars, one a minute, as the path of an SVG drawing 120 wide and 24 high."""

from collections.abc import Sequence
from itertools import pairwise

from millpond.broker.stats.history import Sample

MINUTES = 60
HEIGHT = 24

_MINUTE_MS = 60_000


def level_bars(history: Sequence[Sample], field: str, *, now_ms: int) -> str:
    """Return the SVG path of bars: the maximum of a field of the samples in each minute."""
    highest: dict[int, float] = {}
    for sample in history:
        level = sample.values[field]
        if level:
            minute = _minute_of(sample, now_ms)
            highest[minute] = max(highest.get(minute, 0.0), level)
    return _bars_path(highest)


def rate_bars(history: Sequence[Sample], *fields: str, now_ms: int) -> str:
    """Return the SVG path of bars: the growth of these fields of the samples, added up, in each minute.

    A field that falls counts as no growth.
    """
    growth_by_minute: dict[int, float] = {}
    for previous, sample in pairwise(history):
        for field in fields:
            growth = sample.values[field] - previous.values[field]
            if growth > 0:
                minute = _minute_of(sample, now_ms)
                growth_by_minute[minute] = growth_by_minute.get(minute, 0.0) + growth
    return _bars_path(growth_by_minute)


def _minute_of(sample: Sample, now_ms: int) -> int:
    """Return the minute of a sample, from 0 (an hour ago) to 59 (now)."""
    return MINUTES - 1 - min(MINUTES - 1, max(0, (now_ms - sample.at_ms) // _MINUTE_MS))


def _bars_path(values: dict[int, float]) -> str:
    """Return the SVG path of a bar for each minute. The highest bar fills the height. "" for no values."""
    top = max(values.values(), default=0.0)
    bars = ((minute, value / top) for minute, value in sorted(values.items()) if value > 0)
    return "".join(
        f"M{2 * minute + 1},{HEIGHT}V{HEIGHT - 1 - (HEIGHT - 2) * share:.1f}" for minute, share in bars
    )
