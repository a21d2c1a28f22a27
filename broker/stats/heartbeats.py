"""Heartbeats of worker processes, one a second of each that works, and the totals of their pools.

A heartbeat is the present state of a process, and expires by itself. It also adds to the totals of its pool,
which never decrease when processes end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from json import dumps, loads
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import pool_totals_key, pools_key, process_key, processes_key, sampling_key
from millpond.broker.scripts import script
from millpond.broker.stats.histogram import NAMES, Histogram

#: A heartbeat expires after this time. Then its process is no longer shown.
KEPT_MS = 10_000

#: The time between two samples of all queues and pools.
SAMPLE_MS = 10_000

#: The maximum of kinds in a pool's totals. The figures of further kinds are added up as the kind `others`.
MOST_KINDS = 120

_MICROS = 1_000_000


@dataclass(frozen=True)
class Heartbeat:
    """The state of a worker process.

    `busy` of its `slots` run a task. `in_flight` counts its messages. `cores` is the number of processors
    that it may use. `host_busy` is the share of its host's processors that is in use, 0 if not known.
    `broker_seconds` is the duration of a round trip to the broker. `throttled` is the share of periods in
    which a processor quota stopped the process. `loop_busy` is the share of time in which its main thread,
    which fetches messages, is on a processor.
    """

    name: str
    pool: str
    host: str
    pid: int
    executor: str
    slots: int
    busy: int
    in_flight: int
    prefetch: int
    draining: bool
    uptime_seconds: float
    queues: tuple[str, ...] = ()
    cores: int = 0
    host_busy: float = 0.0
    broker_seconds: float = 0.0
    throttled: float = 0.0
    loop_busy: float = 0.0


_FIELDS = frozenset(field.name for field in fields(Heartbeat))


@dataclass(frozen=True)
class Totals:
    """Totals of a pool since it was first used.

    `ended` counts runs by (state, kind). `wait` and `service` are histograms by kind. `slot_seconds` is the
    time that slots were available, `busy_seconds` the time that they ran a task, `cpu_seconds` the processor
    time of handlers. `fetch_calls` counts the calls that settled and fetched. `shown` counts tasks whose
    Celery events were sent, `left_out` tasks without.
    """

    ended: Mapping[tuple[str, str], int] = field(default_factory=dict)
    wait: Mapping[str, Histogram] = field(default_factory=dict)
    service: Mapping[str, Histogram] = field(default_factory=dict)
    busy_seconds: float = 0.0
    slot_seconds: float = 0.0
    cpu_seconds: float = 0.0
    fetch_calls: int = 0
    shown: int = 0
    left_out: int = 0

    def count_ended(self, *states: str) -> int:
        """Return the number of runs that ended in one of the states, or in any if none is given."""
        return sum(n for (state, _kind), n in self.ended.items() if not states or state in states)


def send_heartbeat(store: Store, heartbeat: Heartbeat, added: Mapping[str, int]) -> bool:
    """Send a heartbeat with additions to its pool's totals. Return True if the caller must write samples now.

    The keys of `added` are fields of the totals, as `parse_totals` describes them.
    """
    keys = (
        process_key(heartbeat.name, store.prefix),
        processes_key(store.prefix),
        pool_totals_key(heartbeat.pool, store.prefix),
        pools_key(store.prefix),
        sampling_key(store.prefix),
    )
    record = asdict(heartbeat)
    record["held"] = record.pop("in_flight")
    args: list[Any] = [heartbeat.name, dumps(record), KEPT_MS, heartbeat.pool, SAMPLE_MS, MOST_KINDS]
    args += [word for name, amount in added.items() if amount for word in (name, amount)]
    with translate_errors("sending a heartbeat"):
        return bool(script("heartbeat").run(store.client, keys, args))


def withdraw_heartbeat(store: Store, process: str) -> None:
    """Delete the heartbeat of a process that ends."""
    with store.pipeline("deleting a heartbeat") as pipe:
        pipe.delete(process_key(process, store.prefix)).zrem(processes_key(store.prefix), process)
        pipe.execute()


def read_processes(store: Store, pool: str | None = None) -> list[Heartbeat]:
    """Return the heartbeats that have not expired, of all processes or those of one pool, by name."""
    with translate_errors("reading the heartbeats"):
        names = sorted(name.decode() for name in store.client.zrange(processes_key(store.prefix), 0, -1))
        texts = store.client.mget([process_key(name, store.prefix) for name in names]) if names else []
    found = [_parse_heartbeat(text) for text in texts if text]
    return [heartbeat for heartbeat in found if pool in (None, heartbeat.pool)]


def count_slots(store: Store, pool: str) -> int:
    """Return the number of slots of a pool's processes."""
    return sum(heartbeat.slots for heartbeat in read_processes(store, pool))


def read_pools(store: Store) -> list[str]:
    """Return the names of all pools that sent a heartbeat."""
    with translate_errors("listing the pools"):
        return sorted(name.decode() for name in store.client.smembers(pools_key(store.prefix)))


def read_totals(store: Store, pools: list[str]) -> Iterator[Totals]:
    """Yield the totals of each pool, in one round trip."""
    with store.pipeline("reading the totals of the pools") as pipe:
        for pool in pools:
            pipe.hgetall(pool_totals_key(pool, store.prefix))
        replies = pipe.execute()
    for raw in replies:
        yield parse_totals({name.decode(): int(value) for name, value in raw.items()})


def _parse_heartbeat(text: bytes) -> Heartbeat:
    """Return a stored heartbeat without fields of a newer version."""
    record = loads(text)
    record |= {"in_flight": record["held"], "queues": tuple(record["queues"])}
    return Heartbeat(**{name: value for name, value in record.items() if name in _FIELDS})


def parse_totals(fields: Mapping[str, int]) -> Totals:
    """Return the totals in fields, which Redis and the task metrics of a worker process store.

    The fields are `ended:<state>:<kind>`; `wait:<bound>:<kind>` for a bucket and `wait:us:<kind>` for the sum
    of a histogram; the same for `service`; and `busy_us`, `slot_us`, `cpu_us`, `turns`, `shown`, `left_out`.
    """
    ended: dict[tuple[str, str], int] = {}
    buckets: dict[str, dict[str, dict[str, int]]] = {"wait": {}, "service": {}}
    for name, value in fields.items():
        group, _, rest = name.partition(":")
        part, _, kind = rest.partition(":")
        if group == "ended":
            ended[part, kind] = value
        elif group in buckets:
            buckets[group].setdefault(kind, {})[part] = value
    return Totals(
        ended=ended,
        wait={kind: _parse_histogram(parts) for kind, parts in buckets["wait"].items()},
        service={kind: _parse_histogram(parts) for kind, parts in buckets["service"].items()},
        busy_seconds=fields.get("busy_us", 0) / _MICROS,
        slot_seconds=fields.get("slot_us", 0) / _MICROS,
        cpu_seconds=fields.get("cpu_us", 0) / _MICROS,
        fetch_calls=fields.get("turns", 0),
        shown=fields.get("shown", 0),
        left_out=fields.get("left_out", 0),
    )


def _parse_histogram(parts: Mapping[str, int]) -> Histogram:
    """Return a histogram from its fields: bound -> count, and `us` -> the sum in microseconds."""
    return Histogram(tuple(parts.get(name, 0) for name in NAMES), parts.get("us", 0) / _MICROS)
