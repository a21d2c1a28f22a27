"""The calls that runs make of their peers: their number in a run, and the cost of a call without its items.

Two things are known of a call without a change of the handler. The kernel counts the segments with data that
went both ways over a connection: the smaller number is the round trips. And if runs have different numbers of
items, a line through their times, R = a + b * items, gives the cost of a call without its items.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache

#: Fields of a window begin with this.
CALL = "call"

#: A line needs this many runs, and numbers of items that differ by this share of their mean.
RUNS, DIFFERENT = 30, 0.2
#: Intervals are of 90 %.
Z = 1.645
#: Round trips need this many looks.
LOOKS = 10

_MICROS = 1_000_000


@dataclass
class CallFigures:
    """Sums over the calls to one peer by runs of one kind. Times are microseconds.

    `runs` to `millis_millis` are of calls with a known number of items. `looks` and `segments` are of
    connections seen for the first time, with the round trips that they had made. `again_segments` and
    `again_micros` are of connections seen again, with the durations added before. `waits` looks found a
    connection that had sent its last data `wait_millis` before, in all.
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

        b is the upper end of its interval, so that no cost of items is counted as one of the call.
        """
        spread = self.runs * self.items_items - self.items**2
        if self.runs < RUNS or spread < (DIFFERENT * self.items) ** 2:
            return None
        slope = (self.runs * self.items_micros - self.items * self.micros) / spread
        mean = self.micros / self.runs
        rest = max(0.0, 1e6 * self.millis_millis / self.runs - mean**2)
        slope = max(0.0, slope + Z * math.sqrt(rest / spread))
        return (self.micros - slope * self.items) / self.runs / _MICROS, slope / _MICROS

    def round_trips(self, service_seconds: float) -> float | None:
        """Return the round trips of a run that takes `service_seconds`, or None if too few were seen."""
        if self.again_looks >= LOOKS and self.again_looks >= self.looks / 3:
            return self.again_segments / self.again_micros * service_seconds * _MICROS
        if self.looks >= LOOKS:  # seen at a random moment of the run, half of its round trips are done
            return 2 * self.segments / self.looks - 1
        return None

    @property
    def mean_wait_seconds(self) -> float:
        """The time that a call had waited when it was looked at, seconds: half of it if all are equal."""
        return self.wait_millis / 1000 / self.waits if self.waits else 0.0


_NAMES = frozenset(each.name for each in fields(CallFigures))


def note_items(into: Counter[str], kind: str, peer: str, items: int, seconds: float) -> None:
    """Add a call with a known number of items to the fields of a window."""
    micros = int(seconds * _MICROS)
    key = _call_key(kind, peer)
    for name, value in (
        ("runs", 1), ("items", items), ("micros", micros), ("items_items", items * items),
        ("items_micros", items * micros), ("millis_millis", round(seconds * 1000) ** 2),
    ):  # fmt: skip
        into[f"{CALL}:{name}:{key}"] += value


def note_connection(
    into: Counter[str], kind: str, peer: str, trips: int, since_seconds: float | None
) -> None:
    """Add the round trips of a connection: all, or those since it was seen last."""
    key = _call_key(kind, peer)
    if since_seconds is None:
        into.update({f"{CALL}:looks:{key}": 1, f"{CALL}:segments:{key}": trips})
        return
    into.update(
        {
            f"{CALL}:again_looks:{key}": 1,
            f"{CALL}:again_segments:{key}": trips,
            f"{CALL}:again_micros:{key}": int(since_seconds * _MICROS),
        }
    )


def note_wait(into: Counter[str], kind: str, peer: str, waited_ms: int) -> None:
    """Add how long a connection has waited for an answer, in ms, to the fields of a window."""
    key = _call_key(kind, peer)
    into.update({f"{CALL}:waits:{key}": 1, f"{CALL}:wait_millis:{key}": waited_ms})


def add_field(calls: dict[tuple[str, str], CallFigures], rest: str, value: int) -> None:
    """Add a field of a window, its text after the first colon. A field of another version is ignored."""
    name, _, text = rest.partition(":")
    if name not in _NAMES:
        return
    if (key := _kind_and_peer(text)) is None:
        return
    figures = calls.setdefault(key, CallFigures())
    setattr(figures, name, getattr(figures, name) + value)


@lru_cache(maxsize=4_096)
def _kind_and_peer(text: str) -> tuple[str, str] | None:
    """Return the kind and the peer of a field, or None if it cannot be read."""
    try:
        kind, peer = json.loads(text)
    except (ValueError, TypeError):
        return None
    return str(kind), str(peer)


def _call_key(kind: str, peer: str) -> str:
    return json.dumps([kind, peer])
