"""The work of a pool in the last minutes, by kind and by place, in windows of ten seconds.

Each worker process adds to the present window with its heartbeat: how runs of each kind ended and how long
they took, where their slots spent the time, which errors they raised. A window has a bounded number of fields
and expires after six minutes. Longer times are in the entries of days.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json import dumps, loads

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import window_key
from millpond.broker.scripts import script
from millpond.broker.stats.calls import CALL, CallFigures, add_call_field

#: The length of a window, and how long it is kept, ms.
WINDOW_MS = 10_000
KEPT_MS = 6 * 60 * 1000

#: The maximum of fields of each group of a window. Further kinds, places, calls and errors are added up in
#: one field, `others`.
MOST_FIELDS = 120

_MICROS = 1_000_000
OTHERS = "others"
#: The name of the peer of a slot that waits for the results of other tasks.
RESULTS = "results of other tasks"


@dataclass
class KindFigures:
    """Runs of one kind: how many ended and how, and the seconds that they waited and ran."""

    ended: int = 0
    failed: int = 0
    retried: int = 0
    wait_seconds: float = 0.0
    service_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def mean_service_seconds(self) -> float | None:
        """The mean service time in seconds, or None if no run ended."""
        return self.service_seconds / self.ended if self.ended else None


@dataclass(frozen=True, slots=True)
class Place:
    """A place where slots spent time: a category, a name (of a peer, a lock), library, line and kind."""

    category: str
    name: str = ""
    library: str = ""
    line: str = ""
    kind: str = ""


@dataclass
class Window:
    """Successive windows of a pool, added up. `seconds` counts from the start of the first that is stored."""

    seconds: float = 0.0
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0
    kinds: dict[str, KindFigures] = field(default_factory=dict)
    places: Counter[Place] = field(default_factory=Counter)
    #: By kind and peer. The peer is "" if the items are those of the run.
    calls: dict[tuple[str, str], CallFigures] = field(default_factory=dict)
    #: Prefork children that were started.
    children: int = 0

    @property
    def ended(self) -> int:
        """The number of runs that ended."""
        return sum(figures.ended for figures in self.kinds.values())

    @property
    def use(self) -> float | None:
        """The share of slot time in which tasks ran, 0 to 1, or None if no process reported."""
        return min(1.0, self.busy_seconds / self.slot_seconds) if self.slot_seconds > 0 else None

    def share(self, *categories: str) -> float:
        """Return the share of the time of all places that was spent in these categories, 0 to 1."""
        total = sum(self.places.values())
        spent = sum(n for place, n in self.places.items() if place.category in categories)
        return spent / total if total else 0.0

    @property
    def service_seconds(self) -> float:
        """The service time of all runs together."""
        return sum(figures.service_seconds for figures in self.kinds.values())


def window_fields(added: Mapping[str, int]) -> Counter[str]:
    """Return the fields of a window for the fields of the totals that a heartbeat adds (`parse_totals`)."""
    fields: Counter[str] = Counter()
    for name, amount in added.items():
        group, _, rest = name.partition(":")
        part, _, kind = rest.partition(":")
        if group == "ended":
            fields[f"ended:{kind}"] += amount
            if part in ("failed", "retried"):
                fields[f"{part}:{kind}"] += amount
        elif group in ("wait", "service") and part == "us":
            fields[f"{group}:{kind}"] += amount
        elif name in ("busy_us", "slot_us", "children"):
            fields[name] += amount
    return fields


def place_field(place: Place) -> str:
    """Return the field of a window that counts the time at a place, in microseconds."""
    return "place:" + dumps([place.category, place.name, place.library, place.line, place.kind])


def error_field(kind: str, error: str) -> str:
    """Return the field of a window that counts an error of a kind. The error is cut to 80 characters."""
    return "error:" + dumps([kind, error[:80]])


def add_to_window(store: Store, pool: str, added: Mapping[str, int]) -> None:
    """Add to fields of the present window of a pool."""
    args = [word for name, amount in added.items() if amount for word in (name, amount)]
    if args:
        with translate_errors("adding to a window"):
            script("count_window").run(
                store.client, (window_key(pool, store.prefix),), (WINDOW_MS, KEPT_MS, MOST_FIELDS, *args)
            )


def read_windows(store: Store, pools: Sequence[str], *, now_ms: int, seconds: float) -> list[Window]:
    """Return the last `seconds` of each pool, added up: whole windows and the present one."""
    [windows] = read_window_spans(store, pools, now_ms=now_ms, seconds=[seconds])
    return windows


def read_window_spans(
    store: Store, pools: Sequence[str], *, now_ms: int, seconds: Sequence[float]
) -> list[list[Window]]:
    """Return for each number of seconds the last seconds of each pool, added up, in one round trip."""
    newest = now_ms // WINDOW_MS
    windows = _read_raw_windows(store, pools, _window_numbers(newest, max(seconds)))
    spans = [_window_numbers(newest, each) for each in seconds]
    return [[_sum_windows(raw[-len(span) :], span, now_ms) for raw in windows] for span in spans]


def _window_numbers(newest: int, seconds: float) -> range:
    """Return the numbers of the newest window and of the windows that cover `seconds` before it."""
    return range(newest - max(1, round(seconds * 1000 / WINDOW_MS)), newest + 1)


def _read_raw_windows(
    store: Store, pools: Sequence[str], numbers: Sequence[int]
) -> list[list[Mapping[bytes, bytes]]]:
    """Return the windows of each pool as they are stored."""
    with store.pipeline("reading the windows") as pipe:
        for pool in pools:
            for number in numbers:
                pipe.hgetall(f"{window_key(pool, store.prefix)}{number}")
        replies = pipe.execute()
    length = len(numbers)
    return [replies[n * length : (n + 1) * length] for n in range(len(pools))]


def read_windows_apart(
    store: Store, pools: Sequence[str], *, now_ms: int, seconds: float, before_seconds: float
) -> list[list[Window]]:
    """Return the windows of each pool, from `seconds` to `before_seconds` ago, apart, without empty ones."""
    newest = (now_ms - int(before_seconds * 1000)) // WINDOW_MS
    numbers = range((now_ms - int(seconds * 1000)) // WINDOW_MS, newest)
    return [
        [
            _sum_windows([raw], [n], (n + 1) * WINDOW_MS)
            for n, raw in zip(numbers, windows, strict=True)
            if raw
        ]
        for windows in _read_raw_windows(store, pools, numbers)
    ]


def _sum_windows(windows: Iterable[Mapping[bytes, bytes]], numbers: Sequence[int], end_ms: int) -> Window:
    """Return the sum of stored windows, from the start of the first that is not empty until `end_ms`."""
    total, first = Window(), None
    for number, fields in zip(numbers, windows, strict=True):
        if fields and first is None:
            first = number
        for name, value in fields.items():
            _add_field(total, name.decode(errors="replace"), int(value))
    total.seconds = 0.0 if first is None else (end_ms - first * WINDOW_MS) / 1000
    return total


def _add_field(window: Window, name: str, value: int) -> None:
    """Add the value of a stored field to a window."""
    group, _, rest = name.partition(":")
    if name == "slot_us":
        window.slot_seconds += value / _MICROS
    elif name == "children":
        window.children += value
    elif name == "busy_us":
        window.busy_seconds += value / _MICROS
    elif group == "place":
        window.places[_parse_place(rest)] += value
    elif group == CALL:
        add_call_field(window.calls, rest, value)
    elif group == "error":
        kind, error = _parse_list(rest, 2)
        window.kinds.setdefault(kind, KindFigures()).errors[error] += value
    elif group in ("ended", "failed", "retried", "wait", "service"):
        figures = window.kinds.setdefault(rest, KindFigures())
        if group in ("wait", "service"):
            setattr(figures, f"{group}_seconds", getattr(figures, f"{group}_seconds") + value / _MICROS)
        else:
            setattr(figures, group, getattr(figures, group) + value)


@lru_cache(maxsize=4_096)
def _parse_place(text: str) -> Place:
    """Return the place in the text of a field."""
    return Place(OTHERS) if text == OTHERS else Place(*_parse_list(text, 5))


@lru_cache(maxsize=4_096)
def _parse_list(text: str, count: int) -> Sequence[str]:
    """Return the list of `count` texts in a field, or `OTHERS` and empty texts if it cannot be parsed."""
    try:
        items = loads(text)
        if isinstance(items, list) and len(items) == count:
            return [str(each) for each in items]
    except ValueError:
        pass
    return [OTHERS, *[""] * (count - 1)]
