"""The runs of each kind in the last days, in growing steps: five minutes for three hours, then hours.

One process adds up the windows of ten seconds (window.py) to an entry of five minutes, and these entries to
an entry of an hour. An entry has the kinds that took most slot time. By them a pool is compared with itself
an hour ago, and yesterday at this time.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import day_key, folding_key, hours_key
from millpond.broker.server import server_time_ms
from millpond.broker.stats import window
from millpond.broker.stats.window import WINDOW_MS, KindFigures

#: The length of an entry, and the number of entries that are kept.
STEP_MS, STEPS = 5 * 60 * 1000, 36
HOUR_MS, HOURS = 3_600_000, 8 * 24
#: The maximum of kinds of an entry.
KINDS = 60

#: The errors of runs are not kept in entries. All entries share this object, because there are many entries.
_NO_ERRORS: Counter[str] = Counter()

#: An entry: its time in ms, and the figures by kind.
Entry = tuple[int, dict[str, KindFigures]]


def fold_if_due(store: Store, pools: Sequence[str]) -> None:
    """Write an entry of five minutes for each pool, and one of an hour, if the last one is that old.

    Of several processes that call this, the one that takes the lock does it.
    """
    if not _take_lock(store, folding_key(store.prefix), STEP_MS - WINDOW_MS // 2):
        return
    now_ms = server_time_ms(store)
    windows = window.read_windows(store, pools, now_ms=now_ms, seconds=STEP_MS / 1000 - WINDOW_MS / 1000)
    step_keys = [day_key(pool, store.prefix) for pool in pools]
    _write_entries(store, step_keys, [each.kinds for each in windows], STEPS, STEP_MS)
    if _take_lock(store, folding_key(store.prefix) + ":hour", HOUR_MS - STEP_MS // 2):
        steps = _read_streams(store, step_keys)
        hours = [
            _sum_figures(kinds for at_ms, kinds in entries if at_ms > now_ms - HOUR_MS) for entries in steps
        ]
        _write_entries(store, [hours_key(pool, store.prefix) for pool in pools], hours, HOURS, HOUR_MS)


def read_days(store: Store, pools: Sequence[str], *, since_ms: int = 0) -> list[list[Entry]]:
    """Return the entries of each pool, oldest first: hours since a time, then the steps of five minutes."""
    hours = _read_streams(store, [hours_key(pool, store.prefix) for pool in pools], since_ms)
    steps = _read_streams(store, [day_key(pool, store.prefix) for pool in pools])
    return [[*before, *after] for before, after in zip(hours, steps, strict=True)]


def _write_entries(
    store: Store,
    keys: Sequence[str],
    figures: Iterable[Mapping[str, KindFigures]],
    max_entries: int,
    step_ms: int,
) -> None:
    """Append an entry to each stream: the kinds that took most time, with their runs, failures and seconds.

    The last `max_entries` are kept. The stream expires if none is added for twice as long as they take to
    write, one in each `step_ms`.
    """
    with store.pipeline("writing the history of kinds") as pipe:
        for key, kinds in zip(keys, figures, strict=True):
            largest = sorted(kinds.items(), key=lambda item: -item[1].service_seconds)[:KINDS]
            entry = {
                kind: [runs.ended, runs.failed, round(runs.service_seconds, 3)]
                for kind, runs in largest
                if runs.ended
            }
            if entry:
                pipe.xadd(key, {"kinds": json.dumps(entry)}, maxlen=max_entries, approximate=False)
                pipe.pexpire(key, 2 * max_entries * step_ms)
        pipe.execute()


def _read_streams(store: Store, keys: Sequence[str], since_ms: int = 0) -> list[list[Entry]]:
    """Return the entries of each stream since a time, the oldest first."""
    with store.pipeline("reading the history of kinds") as pipe:
        for key in keys:
            pipe.xrange(key, min=since_ms)
        replies = pipe.execute()
    return [
        [(int(entry.split(b"-")[0]), _parse_figures(fields)) for entry, fields in entries]
        for entries in replies
    ]


def _parse_figures(fields: Mapping[bytes, bytes]) -> dict[str, KindFigures]:
    """Return the figures by kind in an entry of a stream."""
    return {
        kind: KindFigures(ended=ended, failed=failed, service_seconds=seconds, errors=_NO_ERRORS)
        for kind, (ended, failed, seconds) in json.loads(fields[b"kinds"]).items()
    }


def _sum_figures(entries: Iterable[Mapping[str, KindFigures]]) -> dict[str, KindFigures]:
    """Return the figures of each kind, added up over the entries."""
    totals: dict[str, KindFigures] = {}
    for kinds in entries:
        for kind, figures in kinds.items():
            total = totals.setdefault(kind, KindFigures())
            total.ended += figures.ended
            total.failed += figures.failed
            total.service_seconds += figures.service_seconds
    return totals


def _take_lock(store: Store, lock: str, ms: int) -> bool:
    """Take a lock for some ms. Return False if another process has it."""
    with translate_errors("taking the lock of the history of kinds"):
        return bool(store.client.set(lock, "1", nx=True, px=ms))
