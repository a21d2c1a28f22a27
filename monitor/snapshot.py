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
from millpond.tasks.pools import Pool, PoolsTable

#: The time over which rates of queues are computed.
RATE_SECONDS = 10.0

#: The time over which figures of pools are computed.
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
        """True if a consumer has a lease on the queue."""
        return self.depth.consumers > 0

    @property
    def state(self) -> str:
        """`paused`, `served` or `no worker`."""
        return "paused" if self.limits.paused else "served" if self.is_served else "no worker"


@dataclass(frozen=True)
class PoolView:
    """One pool: its entry in the pools table, its processes, and its figures of the last minute.

    `pool` is None if workers report a pool that is not in the table here. `running` are the processes of the
    pool that send heartbeats.
    """

    name: str
    pool: Pool | None
    queues: tuple[QueueView, ...]
    running: tuple[Heartbeat, ...] = ()
    totals: Totals = field(default_factory=Totals)
    rate: float | None = None
    utilisation: float | None = None
    #: The length of the last minute's window, and the CPU seconds of handlers in it; None if not sampled.
    wait: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    #: Tasks of the last minute whose events were sent (for Flower's own pages), and tasks left out.
    shown: int = 0
    left_out: int = 0
    #: The time at which the pool was drained, ms by the server's clock; None if it is not drained.
    drained_at_ms: int | None = None

    @property
    def slots(self) -> int:
        """The number of slots of the pool's processes."""
        return sum(heartbeat.slots for heartbeat in self.running)

    @property
    def busy(self) -> int:
        """The number of slots that run a task."""
        return sum(heartbeat.busy for heartbeat in self.running)

    @property
    def ready(self) -> int:
        """The number of ready messages of the pool's queues."""
        return sum(queue.depth.ready for queue in self.queues)

    @property
    def in_flight(self) -> int:
        """The number of in-flight messages of the pool's queues."""
        return sum(queue.depth.in_flight for queue in self.queues)

    @property
    def processes_missing(self) -> int:
        """The number of processes that the pools table names and that send no heartbeat."""
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


def read_snapshot(store: Store, pools_table: PoolsTable) -> Snapshot:
    """Return a snapshot of the pools and queues in the table, and of others that the broker knows.

    Raises `BrokerAway`.
    """
    now_ms = server.server_time_ms(store)
    queues = {view.name: view for view in read_queue_views(store, pools_table, now_ms=now_ms)}
    return Snapshot(
        now_ms,
        pools=tuple(_read_pool_views(store, pools_table, queues, now_ms)),
        queues=tuple(queues.values()),
        schedules=tuple(schedules.read_all_schedules(store)),
        leader=schedules.read_leader(store),
        refusal=server.find_write_refusal(store),
    )


def read_queue_views(store: Store, pools_table: PoolsTable, *, now_ms: int | None = None) -> list[QueueView]:
    """Return the queues of the table and all other declared ones, sorted by name. Raises `BrokerAway`."""
    names = read_queue_names(store, pools_table)
    now_ms = server.server_time_ms(store) if now_ms is None else now_ms
    earlier = history.read_samples_before(
        store, [f"queue:{name}" for name in names], now_ms=now_ms, min_age_seconds=RATE_SECONDS
    )
    depths, all_limits = inspect_depth.read_depths(store, names), limits.read_limits_of_all(store, names)
    return [
        QueueView(
            depth,
            queue_limits,
            tuple(pools_table.pools_of(depth.queue)),
            in_rate=_rate_since(sample, depth.counters, ("published",), now_ms),
            out_rate=_rate_since(sample, depth.counters, ("settled", "dead"), now_ms),
        )
        for depth, queue_limits, sample in zip(depths, all_limits, earlier, strict=True)
    ]


def read_queue_names(store: Store, pools_table: PoolsTable) -> list[str]:
    """Return the names of the queues of the table and of all other declared ones. Raises `BrokerAway`."""
    return sorted({*pools_table.queues, *inspect_depth.read_declared_queues(store)})


def _read_pool_views(
    store: Store, pools_table: PoolsTable, queues: dict[str, QueueView], now_ms: int
) -> list[PoolView]:
    """Return the pools of the table, then all others that sent a heartbeat."""
    names = [*pools_table.pools, *sorted(set(heartbeats.read_pools(store)) - set(pools_table.pools))]
    processes = heartbeats.read_processes(store)
    all_totals = heartbeats.read_totals(store, names)
    samples = history.read_samples_before(
        store, [f"pool:{name}" for name in names], now_ms=now_ms, min_age_seconds=WINDOW_SECONDS
    )
    drained = drain.read_drained_pools(store)
    views = []
    for name, totals, sample in zip(names, all_totals, samples, strict=True):
        pool = pools_table.pools.get(name)
        running = tuple(process for process in processes if process.pool == name)
        served = pool.queues if pool else sorted({queue for process in running for queue in process.queues})
        view = PoolView(
            name=name,
            pool=pool,
            queues=tuple(queues[queue] for queue in served if queue in queues),
            running=running,
            totals=totals,
            wait=sum_histograms(totals.wait.values()),
            service=sum_histograms(totals.service.values()),
            shown=totals.shown,
            left_out=totals.left_out,
            drained_at_ms=drained.get(name),
        )
        views.append(view if sample is None else _with_figures_since(sample, view, now_ms))
    return views


def _with_figures_since(sample: Sample, view: PoolView, now_ms: int) -> PoolView:
    """Return a view whose figures are those since an earlier sample of the pool, instead of all totals."""
    totals, earlier = view.totals, sample.values
    slot_seconds = totals.slot_seconds - earlier["slot_seconds"]
    busy_seconds = totals.busy_seconds - earlier["busy_seconds"]
    return replace(
        view,
        rate=_rate_since(sample, {"ended": totals.count_ended()}, ("ended",), now_ms),
        utilisation=min(1.0, busy_seconds / slot_seconds) if slot_seconds > 0 else None,
        wait=view.wait - history.parse_histogram(earlier["wait"]),
        service=view.service - history.parse_histogram(earlier["service"]),
        # A sample of an earlier version does not have these.
        shown=totals.shown - earlier.get("shown", totals.shown),
        left_out=totals.left_out - earlier.get("left_out", totals.left_out),
    )


def _rate_since(
    sample: Sample | None, counters: Mapping[str, int], names: Sequence[str], now_ms: int
) -> float | None:
    """Return the growth a second of the sum of the named counters since an earlier sample.

    Return None without a sample.
    """
    if sample is None or now_ms <= sample.at_ms:
        return None
    growth = sum(counters.get(name, 0) - int(sample.values[name]) for name in names)
    return max(0.0, growth * 1000 / (now_ms - sample.at_ms))
