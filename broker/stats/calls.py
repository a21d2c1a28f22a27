"""The calls that runs make to their peers: their number in a run, and the cost of a call without its items.

Both are measured without a change of the handler. The kernel counts the segments with data that were sent and
received on a connection: the smaller number is the number of round trips. And if calls have different numbers
of items, a line through their durations, R = a + b * items, gives the cost `a` of a call without its items.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache

#: The group of these fields in a window.
CALL = "call"

#: A line is computed from at least this many calls, if the deviation of their numbers of items is at least
#: this share of the mean.
MIN_RUNS, MIN_DEVIATION = 30, 0.2
#: Intervals are of 90 %.
Z = 1.645
#: Round trips are computed from at least this many observations.
MIN_LOOKS = 10

_MICROS = 1_000_000


@dataclass
class CallFigures:
    """Sums over the calls to one peer by runs of one kind. Times are microseconds.

    `runs` to `millis_millis` are sums over calls with a known number of items (`items_items`: of its square,
    and so on). `looks` counts connections that were seen for the first time in a run, `segments` the round
    trips that they had made. `again_looks` counts connections that were seen again, `again_segments` their
    round trips since they were seen before, `again_micros` the time since then. `waits` counts how often a
    connection was seen, and `wait_millis` adds up how long ago each had sent its last data.
    """

    runs: int = 0
    items: int = 0
    micros: int = 0
    items_items: int = 0
    items_micros: int = 0
    millis_millis: int = 0
    looks: int = 0
    segments: int = 0
    again_looks: int = 0
    again_segments: int = 0
    again_micros: int = 0
    waits: int = 0
    wait_millis: int = 0

    @property
    def mean_items(self) -> float:
        """The mean number of items of a call."""
        return self.items / self.runs if self.runs else 0.0

    @property
    def cost_line(self) -> tuple[float, float] | None:
        """Return a and b of R = a + b * items, in seconds, or None if the numbers of items differ too little.

        b is the upper end of its interval, so that no cost of items is counted as a cost of the call.
        """
        spread = self.runs * self.items_items - self.items**2
        if self.runs < MIN_RUNS or spread <= (MIN_DEVIATION * self.items) ** 2:
            return None
        slope = (self.runs * self.items_micros - self.items * self.micros) / spread
        mean = self.micros / self.runs
        variance = max(0.0, 1e6 * self.millis_millis / self.runs - mean**2)
        slope = max(0.0, slope + Z * math.sqrt(variance / spread))
        return (self.micros - slope * self.items) / self.runs / _MICROS, slope / _MICROS

    def round_trips(self, service_seconds: float) -> float | None:
        """Return the round trips of a run that takes `service_seconds`, or None if too few were seen."""
        if self.again_looks >= MIN_LOOKS and self.again_looks >= self.looks / 3:
            return self.again_segments / self.again_micros * service_seconds * _MICROS
        if self.looks >= MIN_LOOKS:  # at a random moment of a run, half of its round trips have been made
            return 2 * self.segments / self.looks - 1
        return None

    @property
    def mean_wait_seconds(self) -> float:
        """The mean time that calls had waited when seen, seconds: half of their duration if all are equal."""
        return self.wait_millis / 1000 / self.waits if self.waits else 0.0


_NAMES = frozenset(field.name for field in fields(CallFigures))


def add_counted_call(window: Counter[str], kind: str, peer: str, items: int, seconds: float) -> None:
    """Add a call with a known number of items, which took some seconds, to the fields of a window."""
    micros = int(seconds * _MICROS)
    _add_figures(window, kind, peer, runs=1, items=items, micros=micros, items_items=items * items)
    _add_figures(window, kind, peer, items_micros=items * micros, millis_millis=round(seconds * 1000) ** 2)


def add_connection(
    window: Counter[str], kind: str, peer: str, trips: int, since_seconds: float | None
) -> None:
    """Add the round trips of a connection to the fields of a window.

    They are those since it was seen `since_seconds` ago, or all if it was not seen before (None).
    """
    if since_seconds is None:
        _add_figures(window, kind, peer, looks=1, segments=trips)
    else:
        micros = int(since_seconds * _MICROS)
        _add_figures(window, kind, peer, again_looks=1, again_segments=trips, again_micros=micros)


def add_wait(window: Counter[str], kind: str, peer: str, waited_ms: int) -> None:
    """Add the time that the call under way on a connection had waited when seen, ms, to a window's fields."""
    _add_figures(window, kind, peer, waits=1, wait_millis=waited_ms)


def _add_figures(window: Counter[str], kind: str, peer: str, **figures: int) -> None:
    """Add figures, by their names in `CallFigures`, to the fields of a window."""
    key = json.dumps([kind, peer])
    window.update({f"{CALL}:{name}:{key}": value for name, value in figures.items()})


def add_call_field(calls: dict[tuple[str, str], CallFigures], name_and_key: str, value: int) -> None:
    """Add a field of a window, given without its group, to the figures of its kind and peer.

    A field of another version is ignored.
    """
    name, _, key_text = name_and_key.partition(":")
    if name not in _NAMES or (key := _parse_key(key_text)) is None:
        return
    figures = calls.setdefault(key, CallFigures())
    setattr(figures, name, getattr(figures, name) + value)


@lru_cache(maxsize=4_096)
def _parse_key(text: str) -> tuple[str, str] | None:
    """Return the kind and the peer of a field, or None if it cannot be parsed."""
    try:
        kind, peer = json.loads(text)
    except (ValueError, TypeError):
        return None
    return str(kind), str(peer)
