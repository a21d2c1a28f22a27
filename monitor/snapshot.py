"""A snapshot of all pools and queues, from Redis, for the pages, `status`, `top`, `why` and the metrics.

Depths and heartbeats are the present ones. Figures of pools are of the last minute and rates of queues of the
last ten seconds: the difference to an earlier sample (broker/stats/history.py). So they are right as soon as
this process has started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from millpond.broker import limits, schedules, server
from millpond.broker.connection import Store
from millpond.broker.control import drain
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.inspect.depth import Depth
from millpond.broker.limits import Limits
from millpond.broker.schedules import Schedule
from millpond.broker.stats import heartbeats, history
from millpond.broker.stats.heartbeats import Heartbeat, Totals
from millpond.broker.stats.histogram import Histogram, sum_histograms
from millpond.broker.stats.history import Sample
from millpond.tasks.pools import Pool, Table

#: The time that rates of queues, and figures of pools, are computed over.
RATE_SECONDS = 10.0
WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class QueueView:
    """One queue: its depth, its limits in force, and the pools of the table that serve it.

    Rates are messages a second, None without an earlier sample.
    """

    depth: Depth
    limits: Limits
    pools: tuple[str, ...]
    in_rate: float | None = None
    out_rate: float | None = None

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.depth.queue

    @property
    def is_served(self) -> bool:
        """True if a consumer has a lease on it."""
        return self.depth.consumers > 0

    @property
    def state(self) -> str:
        """`paused`, `served` or `no worker`."""
        return "paused" if self.limits.paused else "served" if self.is_served else "no worker"


@dataclass(frozen=True)
class PoolView:
    """One pool: its entry in the pools table, its processes, and its figures of the last minute.

    `pool` is None if workers report a pool that is not in the table here.
    """

    name: str
    pool: Pool | None
    queues: tuple[QueueView, ...]
    running: tuple[Heartbeat, ...] = ()
    totals: Totals = field(default_factory=Totals)
    rate: float | None = None
    utilisation: float | None = None
    #: The length of the last minute's window, and the CPU seconds of handlers in it; None if not sampled.
    window_seconds: float | None = None
    cpu_seconds: float | None = None
    wait: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    #: Tasks of the last minute whose events were sent (for Flower's own pages), and tasks left out.
    shown: int = 0
    left_out: int = 0
    #: The time it was drained, ms by the server's clock.
    drained_at_ms: int | None = None

    @property
    def slots(self) -> int:
        """The slots of its processes."""
        return sum(report.slots for report in self.running)

    @property
    def busy(self) -> int:
        """The slots that run a task."""
        return sum(report.busy for report in self.running)

    @property
    def ready(self) -> int:
        """The ready messages of its queues."""
        return sum(queue.depth.ready for queue in self.queues)

    @property
    def in_flight(self) -> int:
        """The in-flight messages of its queues."""
        return sum(queue.depth.in_flight for queue in self.queues)

    @property
    def processes_missing(self) -> int:
        """The processes of the pools table without a heartbeat."""
        return max(0, (self.pool.processes if self.pool else 0) - len(self.running))


@dataclass(frozen=True)
class Snapshot:
    """All pools, queues and schedules at one time, ms by the server's clock.

    `leader` is the leading scheduler (None: none runs). `refusal` is the broker's reason for refusing writes
    (None: it takes them).
    """

    now_ms: int
    pools: tuple[PoolView, ...]
    queues: tuple[QueueView, ...]
    schedules: tuple[Schedule, ...] = ()
    leader: str | None = None
    refusal: str | None = None


def read_snapshot(store: Store, table: Table) -> Snapshot:
    """Return a snapshot of the pools and queues in the table and of all others that were used."""
    now_ms = server.server_time_ms(store)
    queues = {view.name: view for view in queue_views(store, table, now_ms=now_ms)}
    return Snapshot(
        now_ms,
        pools=tuple(_pool_views(store, table, queues, now_ms)),
        queues=tuple(queues.values()),
        schedules=tuple(schedules.all_schedules(store)),
        leader=schedules.leading_scheduler(store),
        refusal=server.write_refusal(store),
    )


def queue_views(store: Store, table: Table, *, now_ms: int | None = None) -> list[QueueView]:
    """Return every queue in the table and every other that was declared, by name."""
    names = sorted({*table.queues, *inspect_depth.declared_queues(store)})
    now_ms = server.server_time_ms(store) if now_ms is None else now_ms
    earlier = history.sample_before(
        store, [f"queue:{name}" for name in names], now_ms=now_ms, seconds=RATE_SECONDS
    )
    found = zip(
        inspect_depth.read_depths(store, names), limits.read_limits_of_all(store, names), earlier, strict=True
    )
    return [
        QueueView(
            depth,
            limit,
            tuple(table.pools_of(depth.queue)),
            in_rate=_rate_since(depth.counters, before, ("published",), now_ms),
            out_rate=_rate_since(depth.counters, before, ("settled", "dead"), now_ms),
        )
        for depth, limit, before in found
    ]


def _pool_views(store: Store, table: Table, queues: dict[str, QueueView], now_ms: int) -> list[PoolView]:
    """Return every pool of the table and every other that sent a heartbeat."""
    names = [*table.pools, *sorted(set(heartbeats.read_pools(store)) - set(table.pools))]
    running = heartbeats.read_processes(store)
    totals = heartbeats.read_totals(store, names)
    earlier = history.sample_before(
        store, [f"pool:{name}" for name in names], now_ms=now_ms, seconds=WINDOW_SECONDS
    )
    drained = drain.drained_pools(store)
    views = (
        _pool_view(
            name, table, queues, [report for report in running if report.pool == name], total_, before, now_ms
        )
        for name, total_, before in zip(names, totals, earlier, strict=True)
    )
    return [replace(view, drained_at_ms=drained.get(view.name)) for view in views]


def _pool_view(
    name: str,
    table: Table,
    queues: dict[str, QueueView],
    running: Sequence[Heartbeat],
    done: Totals,
    earlier: Sample | None,
    now_ms: int,
) -> PoolView:
    """Return one pool: its processes, totals, and figures since an earlier sample."""
    pool = table.pools.get(name)
    names = pool.queues if pool else sorted({queue for report in running for queue in report.queues})
    wait, service = sum_histograms(done.wait.values()), sum_histograms(done.service.values())
    utilisation = cpu_seconds = window_seconds = None
    if earlier is not None:
        cpu_seconds = done.cpu_seconds - earlier.values.get("cpu_seconds", 0.0)
        window_seconds = (now_ms - earlier.at_ms) / 1000
        slot_seconds = done.slot_seconds - earlier.values["slot_seconds"]
        busy_seconds = done.busy_seconds - earlier.values["busy_seconds"]
        utilisation = min(1.0, busy_seconds / slot_seconds) if slot_seconds > 0 else None
    return PoolView(
        name=name,
        pool=pool,
        queues=tuple(queues[queue] for queue in names if queue in queues),
        running=tuple(running),
        totals=done,
        rate=_rate_since({"ended": done.count_ended()}, earlier, ("ended",), now_ms),
        utilisation=utilisation,
        window_seconds=window_seconds,
        cpu_seconds=cpu_seconds,
        wait=wait - history.stored_histogram(earlier.values["wait"]) if earlier else wait,
        shown=done.shown - (earlier.values.get("shown", done.shown) if earlier else 0),
        left_out=done.left_out - (earlier.values.get("left_out", done.left_out) if earlier else 0),
        service=service - history.stored_histogram(earlier.values["service"]) if earlier else service,
    )


def _rate_since(
    counters: Mapping[str, int], earlier: Sample | None, names: Sequence[str], now_ms: int
) -> float | None:
    """Return the growth of counters a second since an earlier sample.

    Return None if there is no such sample.
    """
    if earlier is None or now_ms <= earlier.at_ms:
        return None
    grown = sum(counters.get(name, 0) - int(earlier.values[name]) for name in names)
    return max(0.0, grown * 1000 / (now_ms - earlier.at_ms))
