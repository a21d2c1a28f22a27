"""The history: a sample of every queue and pool each ten seconds, kept for an hour.

Worker processes and Flower write the samples. Once a second each tries to take a lock in Redis that lasts
ten seconds (workers with their heartbeat). The process that gets it writes the samples of all queues and
pools. So there is a history as long as any process runs. Each queue or pool has a bounded stream that expires
by itself.
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

#: Samples kept: an hour.
KEPT = 3_600_000 // SAMPLE_MS

#: A sample that is newer than the server's time by this much was written before its clock was set back.
SET_BACK_MS = 3 * SAMPLE_MS

#: A stream expires this long after its last sample.
FORGOTTEN_MS = 2 * 3_600_000


@dataclass(frozen=True)
class Sample:
    """Values by name at one time (ms by the server's clock)."""

    at_ms: int
    values: Mapping[str, Any]


def take_sampling_turn(store: Store) -> bool:
    """True if samples are due and the caller is to write them: it has taken the lock."""
    with translate_errors("taking the lock of the samples"):
        return bool(store.client.set(sampling_key(store.prefix), "flower", nx=True, px=SAMPLE_MS))


def write_samples(store: Store) -> None:
    """Write a sample of every queue and of every pool."""
    depths = inspect_depth.read_depths(store, inspect_depth.declared_queues(store))
    names = heartbeats.read_pools(store)
    running = heartbeats.read_processes(store)
    entries = {f"queue:{depth.queue}": _queue_values(depth) for depth in depths}
    for name, totals in zip(names, heartbeats.read_totals(store, names), strict=True):
        entries[f"pool:{name}"] = _pool_values([r for r in running if r.pool == name], totals)
    keys = {name: samples_key(name, store.prefix) for name in entries}
    with translate_errors("writing samples"), store.client.pipeline(transaction=False) as pipe:
        for key in _future_streams(store, keys.values()):
            pipe.delete(key)
        for name, values in entries.items():
            key = keys[name]
            pipe.xadd(key, {"values": dumps(values)}, maxlen=KEPT, approximate=False)
            pipe.pexpire(key, FORGOTTEN_MS)
        pipe.execute()


def _future_streams(store: Store, keys: Iterable[str]) -> list[str]:
    """Return the streams with samples of the future, from which no rate can be computed."""
    asked, newest = list(keys), server.server_time_ms(store) + SET_BACK_MS
    with store.client.pipeline(transaction=False) as pipe:
        for key in asked:
            pipe.xrange(key, min=newest, count=1)
        return [key for key, entries in zip(asked, pipe.execute(), strict=True) if entries]


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


def read_history(store: Store, names: list[str]) -> list[list[Sample]]:
    """Return the samples of each of `queue:<name>` or `pool:<name>`, the oldest first."""
    with translate_errors("reading the samples"), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.xrange(samples_key(name, store.prefix))
        replies = pipe.execute()
    return [[parse_sample(entry, fields) for entry, fields in entries] for entries in replies]


def sample_before(store: Store, names: list[str], *, now_ms: int, seconds: float) -> list[Sample | None]:
    """Return for each name the last sample that is at least `seconds` old, to compare the present with.

    It is at most three times `seconds` old, or half a minute if that is longer. If there is none, the oldest
    younger sample is returned, or None without any.
    """
    oldest = now_ms - int(max(3 * seconds, 30) * 1000)
    with translate_errors("reading the samples"), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            key, newest = samples_key(name, store.prefix), now_ms - int(seconds * 1000)
            pipe.xrevrange(key, max=newest, min=oldest, count=1)
            pipe.xrange(key, min=newest, max=now_ms, count=1)
        replies = pipe.execute()
    pairs = zip(replies[::2], replies[1::2], strict=True)
    return [parse_sample(*(old or young)[0]) if old or young else None for old, young in pairs]


def parse_sample(entry: bytes, fields: Mapping[bytes, bytes]) -> Sample:
    """Return the sample of an entry of the stream."""
    return Sample(int(entry.split(b"-")[0]), loads(fields[b"values"]))


def stored_histogram(values: Mapping[str, Any]) -> Histogram:
    """Return the histogram that is stored in a pool's sample as `wait` or `service`."""
    return Histogram(tuple(values.get(name, 0) for name in NAMES), values.get("seconds", 0.0))


def count_and_seconds(values: Mapping[str, Any]) -> tuple[int, float]:
    """Return the number of durations of such a stored histogram, and their sum in seconds."""
    seconds = values.get("seconds", 0.0)
    return round(sum(values.values()) - seconds), seconds


def _pack_histogram(histogram: Histogram) -> dict[str, Any]:
    """Return a histogram as a sample stores it: the buckets in use, and the sum."""
    counts = {name: count for name, count in zip(NAMES, histogram.counts, strict=True) if count}
    return {**counts, "seconds": histogram.seconds}


Entries = list[tuple[bytes, Mapping[bytes, bytes]]]


@dataclass(frozen=True)
class _CachedSamples:
    """The samples read of one queue or pool, and the id of the last of them."""

    last: bytes
    samples: tuple[Sample, ...]


class HistoryCache:
    """The history in memory, for a page that is loaded again and again.

    Samples never change, so only new ones are read from Redis. Safe to share between threads: two that read
    at once store equal values, each as a whole.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: dict[str, _CachedSamples] = {}

    def samples(self, names: Sequence[str]) -> list[tuple[Sample, ...]]:
        """Return the samples of each of `queue:<name>` or `pool:<name>`, the oldest first."""
        cached = [self._cached.get(name) for name in names]
        entries = self._read_since(names, [each.last.decode() if each else "-" for each in cached])
        # A stream without the entry that was read last is a new one: the old one expired or was deleted.
        again = [
            n
            for n, (each, new) in enumerate(zip(cached, entries, strict=True))
            if each and not _is_same_stream(each, new)
        ]
        for n, whole in zip(
            again, self._read_since([names[n] for n in again], ["-"] * len(again)), strict=True
        ):
            cached[n], entries[n] = None, whole
        return [
            self._store_new(name, each, new) for name, each, new in zip(names, cached, entries, strict=True)
        ]

    def _read_since(self, names: Sequence[str], since: Sequence[str]) -> list[Entries]:
        """Return the entries of each stream from an id on, that id included."""
        if not names:
            return []
        with translate_errors("reading the samples"), self._store.client.pipeline(transaction=False) as pipe:
            for name, first in zip(names, since, strict=True):
                pipe.xrange(samples_key(name, self._store.prefix), min=first)
            entries: list[Entries] = pipe.execute()
        return entries

    def _store_new(self, name: str, cached: _CachedSamples | None, entries: Entries) -> tuple[Sample, ...]:
        """Append a stream's new entries to its cached samples and return these.

        With `cached`, the first entry is the last cached one. A stream without entries is forgotten.
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


def _is_same_stream(cached: _CachedSamples, entries: Entries) -> bool:
    """True if the first entry is the last cached one, so the stream is the same."""
    return bool(entries) and entries[0][0] == cached.last
