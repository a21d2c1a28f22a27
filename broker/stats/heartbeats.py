"""Take in what worker processes say of themselves, once a second each, and add it up by pool.

A report says how a process is now, and expires by itself. What it adds to its pool's totals stays: they
only grow, whichever process comes or goes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import pool_totals_key, pools_key, process_key, processes_key, sampling_key
from millpond.broker.scripts import script
from millpond.broker.stats.histogram import NAMES, Histogram

#: How long a report stands; a process that says nothing for so long is not shown any more.
KEPT_MS = 10_000

#: The time between two samples of all queues and pools.
SAMPLE_MS = 10_000

_MICROS = 1_000_000


@dataclass(frozen=True)
class Heartbeat:
    """Say how a worker process is: `held` messages, `busy` of its `slots`, `uptime_seconds` since it was
    ready. `cores` are the processors that it may use, `host_busy` is the share
    of its host's processors that somebody uses; 0: it does not say.
    """

    name: str
    pool: str
    host: str
    pid: int
    executor: str
    slots: int
    busy: int
    held: int
    prefetch: int
    draining: bool
    uptime_seconds: float
    queues: tuple[str, ...] = ()
    cores: int = 0
    host_busy: float = 0.0


_FIELDS = frozenset(each.name for each in fields(Heartbeat))


@dataclass(frozen=True)
class Totals:
    """Hold what a pool has done since it was first used, by kind of task.

    `ended` counts (state, kind); `slot_seconds` is how long its slots were there, `busy_seconds` how long
    they ran something, `cpu_seconds` how long bodies were on a processor; `turns` are its round trips to
    fetch and settle. Of its tasks `shown` had their events sent, `left_out` had not.
    """

    ended: Mapping[tuple[str, str], int] = field(default_factory=dict)
    wait: Mapping[str, Histogram] = field(default_factory=dict)
    service: Mapping[str, Histogram] = field(default_factory=dict)
    busy_seconds: float = 0.0
    slot_seconds: float = 0.0
    cpu_seconds: float = 0.0
    turns: int = 0
    shown: int = 0
    left_out: int = 0

    def count(self, *states: str) -> int:
        """Count what ended in one of the states; in any, when none is named."""
        return sum(n for (state, _kind), n in self.ended.items() if not states or state in states)


def send(store: Store, report: Heartbeat, added: Mapping[str, int]) -> bool:
    """Send a report, and what it adds to its pool's totals; say whether the caller is to take samples now.

    `added` is keyed by the fields of the totals: worker/report/task_metrics.py writes them,
    `_totals` below reads them.
    """
    keys = (
        process_key(report.name, store.prefix),
        processes_key(store.prefix),
        pool_totals_key(report.pool, store.prefix),
        pools_key(store.prefix),
        sampling_key(store.prefix),
    )
    words = [report.name, json.dumps(asdict(report)), KEPT_MS, report.pool, SAMPLE_MS]
    for name, amount in added.items():
        words += [name, amount]
    with translate_errors("reporting"):
        return bool(script("heartbeat").run(store.client, keys, words))


def withdraw(store: Store, process: str) -> None:
    """Take back the report of a process that ends."""
    with translate_errors("taking back a report"), store.client.pipeline(transaction=False) as pipe:
        pipe.delete(process_key(process, store.prefix)).zrem(processes_key(store.prefix), process)
        pipe.execute()


def processes(store: Store) -> list[Heartbeat]:
    """Return the reports that stand, by name."""
    with translate_errors("reading the reports"):
        names = sorted(name.decode() for name in store.client.zrange(processes_key(store.prefix), 0, -1))
        found = store.client.mget([process_key(name, store.prefix) for name in names]) if names else []
    return [_report(text) for text in found if text]


def pools(store: Store) -> list[str]:
    """Name the pools that ever reported."""
    with translate_errors("listing the pools"):
        return sorted(name.decode() for name in store.client.smembers(pools_key(store.prefix)))


def totals(store: Store, pools: list[str]) -> Iterator[Totals]:
    """Yield the totals of pools, in one round trip."""
    with translate_errors("reading what the pools did"), store.client.pipeline(transaction=False) as pipe:
        for pool in pools:
            pipe.hgetall(pool_totals_key(pool, store.prefix))
        found = pipe.execute()
    for raw in found:
        yield totals_from({name.decode(): int(value) for name, value in raw.items()})


def _report(text: bytes) -> Heartbeat:
    """Read a report; what a newer worker says beyond this one's fields is left out."""
    values = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
    return Heartbeat(**{**values, "queues": tuple(values["queues"])})


def totals_from(found: Mapping[str, int]) -> Totals:
    """Read the fields of the totals, as Redis and a worker's meter keep them.

    `ended:<state>:<kind>`, `wait:<bound>:<kind>`, `wait:us:<kind>`, the same of `service`, and `busy_us`,
    `slot_us`, `cpu_us`, `turns`, `shown`, `left_out`.
    """
    ended: dict[tuple[str, str], int] = {}
    buckets: dict[str, dict[str, dict[str, int]]] = {"wait": {}, "service": {}}
    for name, value in found.items():
        what, _, rest = name.partition(":")
        part, _, kind = rest.partition(":")
        if what == "ended":
            ended[part, kind] = value
        elif what in buckets:
            buckets[what].setdefault(kind, {})[part] = value
    return Totals(
        ended=ended,
        wait={kind: _histogram(parts) for kind, parts in buckets["wait"].items()},
        service={kind: _histogram(parts) for kind, parts in buckets["service"].items()},
        busy_seconds=found.get("busy_us", 0) / _MICROS,
        slot_seconds=found.get("slot_us", 0) / _MICROS,
        cpu_seconds=found.get("cpu_us", 0) / _MICROS,
        turns=found.get("turns", 0),
        shown=found.get("shown", 0),
        left_out=found.get("left_out", 0),
    )


def _histogram(parts: Mapping[str, int]) -> Histogram:
    return Histogram(tuple(parts.get(name, 0) for name in NAMES), parts.get("us", 0) / _MICROS)
