"""Write what Redis knows of queues, pools and tasks as Prometheus metrics.

All counters are the fleet's, kept in Redis: they survive restarts of workers and of whoever is scraped,
and are scraped in one place. Labels are queues, pools, kinds and ways to end: nothing that grows with the
tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from millpond.broker.errors import BrokerError
from millpond.broker.stats.histogram import Histogram
from millpond.monitor.snapshot import Overview, PoolView, QueueView
from millpond.tasks.process import prometheus_text as writing
from millpond.tasks.process.prometheus_text import Labels, Metric

#: Name, help, and how it is read off what it is a figure of.
Figure = tuple[str, str, Callable[[Any], float]]

OF_QUEUES: tuple[Figure, ...] = (
    ("ready", "Messages that wait for a slot", lambda view: view.depth.ready),
    ("bound", "Messages that may wait; 0 is no bound", lambda view: view.limits.bound),
    ("held", "Messages that consumers hold", lambda view: view.depth.in_flight),
    ("delayed", "Messages that are not due", lambda view: view.depth.delayed),
    ("dead", "Dead letters that are kept", lambda view: view.depth.dead),
    ("consumers", "Consumers with a lease", lambda view: view.depth.consumers),
    ("paused", "Whether nothing is handed out", lambda view: int(view.limits.paused)),
    (
        "oldest_age_seconds",
        "How long the next message to leave has waited",
        lambda view: view.depth.oldest_seconds or 0.0,
    ),
)

OF_POOLS: tuple[Figure, ...] = (
    ("processes", "Processes that report", lambda view: len(view.running)),
    ("processes_missing", "Processes of the table that do not report", lambda v: v.processes_missing),
    ("slots", "Tasks that the processes can run at once", lambda view: view.slots),
    ("slots_busy", "Tasks that run", lambda view: view.busy),
)

COUNTED_OF_POOLS: tuple[Figure, ...] = (
    ("slot_seconds", "Time that slots were there", lambda view: view.totals.slot_seconds),
    ("busy_seconds", "Time that slots ran something", lambda view: view.totals.busy_seconds),
    ("turns", "Round trips that fetched and settled", lambda view: view.totals.fetch_calls),
)

#: Counter of a queue in Redis -> name and help of the metric.
COUNTERS = {
    "published": ("published", "Messages that the queue took in"),
    "refused": ("rejected", "Messages not taken: the queue was full, or their batch closed"),
    "shed": ("shed", "Messages that a newer one pushed out of the full queue"),
    "fetched": ("fetched", "Messages handed to consumers"),
    "settled": ("settled", "Deliveries that ended the message"),
    "retried": ("retried", "Messages that another took the place of, to be run later"),
    "redelivered": ("redelivered", "Deliveries handed out again, for their consumer was lost"),
    "returned": ("returned", "Messages given back before they ran"),
    "late": ("late", "Settlements of messages that were not the consumer's any more"),
    "dead": ("buried", "Messages moved to the dead letters"),
    "requeued": ("requeued", "Dead letters sent again"),
    "renewed": ("lease_renewals", "Renewals of consumers' leases"),
    "leases_lost": ("leases_lost", "Leases that ran out"),
}


def exposition(seen: Overview | BrokerError) -> bytes:
    """Return the metrics as text; without an answer of the broker, that it is away."""
    return writing.exposition(_metrics(seen))


def _metrics(seen: Overview | BrokerError) -> Iterator[Metric]:
    away = isinstance(seen, BrokerError)
    yield _one("millpond_broker_up", "Whether the broker answered", not away)
    if isinstance(seen, BrokerError):
        return
    yield _one("millpond_broker_takes_writes", "Whether the broker takes what is sent", seen.refusal is None)
    queues = {view.name: view for view in seen.queues}
    pools = {view.name: view for view in seen.pools}
    yield from _each("gauge", "queue", OF_QUEUES, queues)
    yield from _each("counter", "queue", _counters(), queues)
    yield from _each("gauge", "pool", OF_POOLS, pools)
    yield from _each("counter", "pool", COUNTED_OF_POOLS, pools)
    yield from _of_tasks(seen.pools)
    yield from _of_schedules(seen)


def _of_schedules(seen: Overview) -> Iterator[Metric]:
    """Yield nothing where nothing is scheduled: nobody has to lead then."""
    if not seen.schedules:
        return
    yield _one("millpond_scheduler_up", "Whether a scheduler leads", seen.leader is not None)
    figures: tuple[Figure, ...] = (
        ("fired", "Periods that were sent", lambda schedule: schedule.fired),
        ("missed", "Periods that nobody sent in time", lambda schedule: schedule.missed),
    )
    yield from _each("counter", "schedule", figures, {each.name: each for each in seen.schedules})


def _counters() -> list[Figure]:
    def reader(counted: str) -> Callable[[QueueView], float]:
        return lambda view: view.depth.counters.get(counted, 0)

    return [(name, help_, reader(counted)) for counted, (name, help_) in COUNTERS.items()]


def _one(name: str, help_: str, holds: bool) -> Metric:
    return Metric(name, "gauge", help_, [({}, int(holds))])


def _each(
    kind: Literal["counter", "gauge"], of: str, figures: Sequence[Figure], views: Mapping[str, Any]
) -> Iterator[Metric]:
    for name, help_, read in figures:
        values = [({of: labelled}, read(view)) for labelled, view in views.items()]
        yield Metric(f"millpond_{of}_{name}", kind, help_, values)


def _of_tasks(pools: Iterable[PoolView]) -> Iterator[Metric]:
    views = list(pools)
    ended: list[tuple[Labels, float]] = [
        ({"kind": kind, "pool": view.name, "state": state}, count)
        for view in views
        for (state, kind), count in sorted(view.totals.ended.items())
    ]
    yield Metric("millpond_task_ended", "counter", "Runs, by how they ended", ended)

    def of(name: str) -> list[tuple[Labels, Histogram]]:
        return [
            ({"kind": kind, "pool": view.name}, histogram)
            for view in views
            for kind, histogram in sorted(getattr(view.totals, name).items())
        ]

    yield Metric("millpond_task_wait_seconds", "histogram", "From sent, or due, to started", of("wait"))
    yield Metric("millpond_task_service_seconds", "histogram", "Time in the body", of("service"))
    yield Metric(
        "millpond_task_events_skipped",
        "counter",
        "Tasks whose events were left out of the sample that Flower's own pages show",
        [({"pool": view.name}, view.totals.left_out) for view in views],
    )
