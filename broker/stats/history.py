"""The history: a sample of every queue and every pool each ten seconds, kept for an hour.

Worker processes and Flower write the samples. Once a second each of them tries to take a lock in Redis that
lasts ten seconds; a worker process does it with its heartbeat. The process that gets the lock writes the
samples of all queues and pools. So there is a history as long as any process runs. Each queue or pool has a
bounded stream, which expires by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps, loads
from typing import Any

from millpond.broker import server
from millpond.broker.connection import Store, translate_errors
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import samples_key, sampling_key
from millpond.broker.stats import heartbeats
from millpond.broker.stats.heartbeats import SAMPLE_MS, Totals
from millpond.broker.stats.histogram import NAMES, Histogram, sum_histograms

#: The number of samples that are kept: an hour's.
KEPT = 3_600_000 // SAMPLE_MS

#: A sample whose time is later than the server's by this much was written before the server's clock was set
#: back.
SET_BACK_MS = 3 * SAMPLE_MS

#: A stream expires this long after its last sample.
FORGOTTEN_MS = 2 * 3_600_000


@dataclass(frozen=True)
class Sample:
    """Values by name at one time (ms by the server's clock)."""

    at_ms: int
    values: Mapping[str, Any]


def take_sampling_lock(store: Store) -> bool:
    """Take the lock of the samples if they are due. Return True if the caller got it and must write them."""
    with translate_errors("taking the lock of the samples"):
        return bool(store.client.set(sampling_key(store.prefix), "flower", nx=True, px=SAMPLE_MS))


def write_samples(store: Store) -> None:
    """Write a sample of every queue and of every pool."""
    depths = inspect_depth.read_depths(store, inspect_depth.read_declared_queues(store))
    names = heartbeats.read_pools(store)
    running = heartbeats.read_processes(store)
    entries = {f"queue:{depth.queue}": _queue_values(depth) for depth in depths}
    for name, totals in zip(names, heartbeats.read_totals(store, names), strict=True):
        entries[f"pool:{name}"] = _pool_values([r for r in running if r.pool == name], totals)
    keys = {name: samples_key(name, store.prefix) for name in entries}
    with store.pipeline("writing samples") as pipe:
        for key in _future_streams(store, keys.values()):
            pipe.delete(key)
        for name, values in entries.items():
            key = keys[name]
            pipe.xadd(key, {"values": dumps(values)}, maxlen=KEPT, approximate=False)
            pipe.pexpire(key, FORGOTTEN_MS)
        pipe.execute()


def _future_streams(store: Store, keys: Iterable[str]) -> list[str]:
    """Return those of the streams that have samples of the future, from which no rate can be computed."""
    keys, newest = list(keys), server.server_time_ms(store) + SET_BACK_MS
    with store.client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.xrange(key, min=newest, count=1)
        return [key for key, entries in zip(keys, pipe.execute(), strict=True) if entries]


def _queue_values(depth: inspect_depth.Depth) -> dict[str, Any]:
    """Return the values of a queue's sample."""
    counters = {name: depth.counters.get(name, 0) for name in ("published", "fetched", "settled", "dead")}
    return {
        **counters,
        "ready": depth.ready,
        "held": depth.in_flight,
        "delayed": depth.delayed,
        "oldest_seconds": round(depth.oldest_seconds or 0, 3),
    }


def _pool_values(running: list[heartbeats.Heartbeat], totals: Totals) -> dict[str, Any]:
    """Return the values of a pool's sample."""
    return {
        "processes": len(running),
        "slots": sum(report.slots for report in running),
        "busy": sum(report.busy for report in running),
        "busy_seconds": totals.busy_seconds,
        "slot_seconds": totals.slot_seconds,
        "cpu_seconds": totals.cpu_seconds,
        "ended": totals.count_ended(),
        "failed": totals.count_ended("failed"),
        "shown": totals.shown,
        "left_out": totals.left_out,
        "wait": _pack_histogram(sum_histograms(totals.wait.values())),
        "service": _pack_histogram(sum_histograms(totals.service.values())),
    }


def read_samples_before(
    store: Store, names: list[str], *, now_ms: int, min_age_seconds: float
) -> list[Sample | None]:
    """Return for each name the latest sample that is at least `min_age_seconds` old.

    The present is compared with it. It is at most three times as old, or half a minute if that is longer.
    Without such a sample, the oldest of the younger samples is returned, or None if there is no sample.
    Raises `BrokerAway`.
    """
    oldest = now_ms - int(max(3 * min_age_seconds, 30) * 1000)
    with store.pipeline("reading the samples") as pipe:
        for name in names:
            key, newest = samples_key(name, store.prefix), now_ms - int(min_age_seconds * 1000)
            pipe.xrevrange(key, max=newest, min=oldest, count=1)
            pipe.xrange(key, min=newest, max=now_ms, count=1)
        replies = pipe.execute()
    pairs = zip(replies[::2], replies[1::2], strict=True)
    return [parse_sample(*(old or young)[0]) if old or young else None for old, young in pairs]


def parse_sample(entry: bytes, fields: Mapping[bytes, bytes]) -> Sample:
    """Return the sample in an entry of a stream."""
    return Sample(int(entry.split(b"-")[0]), loads(fields[b"values"]))


def parse_histogram(values: Mapping[str, Any]) -> Histogram:
    """Return the histogram that a pool's sample has as `wait` or `service`."""
    return Histogram(tuple(values.get(name, 0) for name in NAMES), values.get("seconds", 0.0))


def _pack_histogram(histogram: Histogram) -> dict[str, Any]:
    """Return a histogram as a sample stores it: the buckets in use, and the sum."""
    counts = {name: count for name, count in zip(NAMES, histogram.counts, strict=True) if count}
    return {**counts, "seconds": histogram.seconds}


Entries = list[tuple[bytes, Mapping[bytes, bytes]]]


@dataclass(frozen=True)
class _CachedSamples:
    """The samples that were read of one queue or pool, and the id of the last of their entries."""

    last: bytes
    samples: tuple[Sample, ...]


class HistoryCache:
    """The history in memory, for a page that is loaded again and again.

    Samples never change, so only new ones are read from Redis. Threads may share a cache without a lock: two
    that read at once replace an entry by equal values.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: dict[str, _CachedSamples] = {}

    def samples(self, names: Sequence[str]) -> list[tuple[Sample, ...]]:
        """Return the samples of each of `queue:<name>` or `pool:<name>`, the oldest first."""
        found = [self._cached.get(name) for name in names]
        entries = self._read_since(names, [cached.last.decode() if cached else "-" for cached in found])
        # A stream without the entry that was read last is a new one: the old one expired or was deleted. It
        # is read whole.
        renewed = [
            n
            for n, (cached, new) in enumerate(zip(found, entries, strict=True))
            if cached and not (new and new[0][0] == cached.last)
        ]
        all_entries = self._read_since([names[n] for n in renewed], ["-"] * len(renewed))
        for n, whole in zip(renewed, all_entries, strict=True):
            found[n], entries[n] = None, whole
        return [
            self._store_new(name, cached, new)
            for name, cached, new in zip(names, found, entries, strict=True)
        ]

    def _read_since(self, names: Sequence[str], since: Sequence[str]) -> list[Entries]:
        """Return the entries of each stream from an id on, that entry included. "-" is the first entry."""
        if not names:
            return []
        with self._store.pipeline("reading the samples") as pipe:
            for name, first in zip(names, since, strict=True):
                pipe.xrange(samples_key(name, self._store.prefix), min=first)
            entries: list[Entries] = pipe.execute()
        return entries

    def _store_new(self, name: str, cached: _CachedSamples | None, entries: Entries) -> tuple[Sample, ...]:
        """Append a stream's new entries to its cached samples, and return all of them.

        If there are cached samples, the first entry is the last of these. A stream without entries is
        forgotten.
        """
        new = entries[1:] if cached else entries
        if not entries:
            self._cached.pop(name, None)
            return ()
        if cached and not new:
            return cached.samples
        all_ = (*(cached.samples if cached else ()), *(parse_sample(*entry) for entry in new))
        self._cached[name] = _CachedSamples(entries[-1][0], all_[-KEPT:])
        return self._cached[name].samples
