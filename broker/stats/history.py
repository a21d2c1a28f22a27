"""Keep the last hour of every queue and pool: a sample each ten seconds, in a stream that is bounded.

Worker processes and Flower take them: each asks for the claim once a second (reports.py), and whoever
gets it writes the samples of all. So there is a past to show as long as anybody runs, and nobody has to
be chosen. A stream expires by itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import samples_key, sampling_key
from millpond.broker.stats import heartbeats
from millpond.broker.stats.heartbeats import SAMPLE_MS, Totals
from millpond.broker.stats.histogram import NAMES, Histogram, total

#: How many samples are kept: an hour of them.
KEPT = 3_600_000 // SAMPLE_MS

#: The streams go when nobody has sampled for so long.
FORGOTTEN_MS = 2 * 3_600_000


@dataclass(frozen=True)
class Sample:
    """Hold what was seen at one time (ms, the server's clock), by name."""

    at_ms: int
    values: Mapping[str, Any]


def claimed(store: Store) -> bool:
    """Say whether the caller is to take the next samples."""
    with translate_errors("claiming the samples"):
        return bool(store.client.set(sampling_key(store.prefix), "flower", nx=True, px=SAMPLE_MS))


def take(store: Store) -> None:
    """Write a sample of every queue and of every pool."""
    depths = inspect_depth.depths(store, inspect_depth.queues(store))
    names = heartbeats.pools(store)
    running = heartbeats.processes(store)
    entries = {f"queue:{depth.queue}": of_queue(depth) for depth in depths}
    for name, totals in zip(names, heartbeats.totals(store, names), strict=True):
        entries[f"pool:{name}"] = of_pool([r for r in running if r.pool == name], totals)
    with translate_errors("writing samples"), store.client.pipeline(transaction=False) as pipe:
        for what, values in entries.items():
            key = samples_key(what, store.prefix)
            pipe.xadd(key, {"values": json.dumps(values)}, maxlen=KEPT, approximate=False)
            pipe.pexpire(key, FORGOTTEN_MS)
        pipe.execute()


def of_queue(depth: inspect_depth.Depth) -> dict[str, Any]:
    """Return what is kept of a queue."""
    counters = {name: depth.counters.get(name, 0) for name in ("published", "fetched", "settled", "dead")}
    return {
        **counters,
        "ready": depth.ready,
        "held": depth.in_flight,
        "delayed": depth.delayed,
        "oldest_seconds": round(depth.oldest_seconds or 0, 3),
    }


def of_pool(running: list[heartbeats.Heartbeat], totals: Totals) -> dict[str, Any]:
    """Return what is kept of a pool."""
    return {
        "processes": len(running),
        "slots": sum(report.slots for report in running),
        "busy": sum(report.busy for report in running),
        "busy_seconds": totals.busy_seconds,
        "slot_seconds": totals.slot_seconds,
        "cpu_seconds": totals.cpu_seconds,
        "ended": totals.count(),
        "failed": totals.count("failed"),
        "shown": totals.shown,
        "left_out": totals.left_out,
        "wait": _packed(total(totals.wait.values())),
        "service": _packed(total(totals.service.values())),
    }


def history(store: Store, what: list[str]) -> list[list[Sample]]:
    """Return the samples of the last hour of each of `queue:<name>` or `pool:<name>`, the oldest first."""
    with translate_errors("reading the samples"), store.client.pipeline(transaction=False) as pipe:
        for name in what:
            pipe.xrange(samples_key(name, store.prefix))
        found = pipe.execute()
    return [[sample(entry, fields) for entry, fields in entries] for entries in found]


def before(store: Store, what: list[str], *, now_ms: int, seconds: float) -> list[Sample | None]:
    """Return of each the sample to compare now with: the last one that is at least `seconds` old.

    None where there is none of the last three times `seconds`, or half a minute.
    """
    oldest = now_ms - int(max(3 * seconds, 30) * 1000)
    with translate_errors("reading the samples"), store.client.pipeline(transaction=False) as pipe:
        for name in what:
            key, newest = samples_key(name, store.prefix), now_ms - int(seconds * 1000)
            pipe.xrevrange(key, max=newest, min=oldest, count=1)
            pipe.xrange(key, min=newest, max=now_ms, count=1)
        found = pipe.execute()
    pairs = zip(found[::2], found[1::2], strict=True)
    return [sample(*(old or young)[0]) if old or young else None for old, young in pairs]


def sample(entry: bytes, fields: Mapping[bytes, bytes]) -> Sample:
    """Return the sample that an entry of the stream is."""
    return Sample(int(entry.split(b"-")[0]), json.loads(fields[b"values"]))


def unpacked(values: Mapping[str, Any]) -> Histogram:
    """Return the histogram that a sample of a pool holds under `wait` or `service`."""
    return Histogram(tuple(values.get(name, 0) for name in NAMES), values.get("seconds", 0.0))


def counted(values: Mapping[str, Any]) -> tuple[int, float]:
    """Return how many durations such a histogram holds, and their sum in seconds."""
    seconds = values.get("seconds", 0.0)
    return round(sum(values.values()) - seconds), seconds


def _packed(histogram: Histogram) -> dict[str, Any]:
    seen = {name: count for name, count in zip(NAMES, histogram.counts, strict=True) if count}
    return {**seen, "seconds": histogram.seconds}


Entries = list[tuple[bytes, Mapping[bytes, bytes]]]


@dataclass(frozen=True)
class _Known:
    """Hold the samples of one queue or pool, and the entry of the stream that the last of them is."""

    last: bytes
    samples: tuple[Sample, ...]


class HistoryCache:
    """Return the samples of the last hour, as `samples.history` does. Threads may share one.

    What two of them learn at once is the same, and is put into its place whole.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}

    def of(self, what: Sequence[str]) -> list[tuple[Sample, ...]]:
        """Return the samples of each of `queue:<name>` or `pool:<name>`, the oldest first."""
        known = [self._known.get(name) for name in what]
        found = self._read(what, [each.last.decode() if each else "-" for each in known])
        # A stream that does not hold what was read of it last is another one: it expired, or was dropped.
        again = [
            n
            for n, (each, new) in enumerate(zip(known, found, strict=True))
            if each and not _follows(each, new)
        ]
        for n, whole in zip(again, self._read([what[n] for n in again], ["-"] * len(again)), strict=True):
            known[n], found[n] = None, whole
        return [self._learnt(name, each, new) for name, each, new in zip(what, known, found, strict=True)]

    def _read(self, what: Sequence[str], since: Sequence[str]) -> list[Entries]:
        if not what:
            return []
        with translate_errors("reading the samples"), self._store.client.pipeline(transaction=False) as pipe:
            for name, first in zip(what, since, strict=True):
                pipe.xrange(samples_key(name, self._store.prefix), min=first)
            found: list[Entries] = pipe.execute()
        return found

    def _learnt(self, name: str, known: _Known | None, entries: Entries) -> tuple[Sample, ...]:
        new = entries[1:] if known else entries
        if not entries:
            self._known.pop(name, None)
            return ()
        if known and not new:
            return known.samples
        all_ = (*(known.samples if known else ()), *(sample(*entry) for entry in new))
        self._known[name] = _Known(entries[-1][0], all_[-KEPT:])
        return self._known[name].samples


def _follows(known: _Known, entries: Entries) -> bool:
    return bool(entries) and entries[0][0] == known.last
