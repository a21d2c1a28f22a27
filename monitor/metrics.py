"""Write what Redis knows of queues, pools and tasks as Prometheus metrics.

All counters are the fleet's, kept in Redis: they survive restarts of workers and of whoever is scraped,
and are scraped in one place. Labels are queues, pools, kinds and ways to end: nothing that grows with the
tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.errors import BrokerError
from broker.histograms import NAMES, Histogram
from monitor.overview import Overview, PoolView, QueueView
from tasks.exposition import EXPOSED

#: Name, help, and how it is read off what it is a figure of.
Figure = tuple[str, str, Callable[[Any], float]]

OF_QUEUES: tuple[Figure, ...] = (
    ("ready", "Messages that wait for a slot", lambda view: view.depth.ready),
    ("bound", "Messages that may wait; 0 is no bound", lambda view: view.limits.bound),
    ("held", "Messages that consumers hold", lambda view: view.depth.held),
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
    ("turns", "Round trips that fetched and settled", lambda view: view.totals.turns),
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
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Prepared(list(_families(seen))))
    return generate_latest(registry)


class _Prepared(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(seen: Overview | BrokerError) -> Iterator[Metric]:
    away = isinstance(seen, BrokerError)
    yield GaugeMetricFamily("millpond_broker_up", "Whether the broker answered", value=0 if away else 1)
    if isinstance(seen, BrokerError):
        return
    takes = GaugeMetricFamily("millpond_broker_takes_writes", "Whether the broker takes what is sent")
    takes.add_metric([], int(seen.refusal is None))
    yield takes
    queues = {view.name: view for view in seen.queues}
    pools = {view.name: view for view in seen.pools}
    yield from _each(GaugeMetricFamily, "queue", OF_QUEUES, queues)
    yield from _each(CounterMetricFamily, "queue", _counters(), queues)
    yield from _each(GaugeMetricFamily, "pool", OF_POOLS, pools)
    yield from _each(CounterMetricFamily, "pool", COUNTED_OF_POOLS, pools)
    yield from _of_tasks(seen.pools)
    yield from _of_schedules(seen)


def _of_schedules(seen: Overview) -> Iterator[Metric]:
    """Yield nothing where nothing is scheduled: nobody has to lead then."""
    if not seen.schedules:
        return
    led = int(seen.leader is not None)
    yield GaugeMetricFamily("millpond_scheduler_up", "Whether a scheduler leads", value=led)
    figures: tuple[Figure, ...] = (
        ("fired", "Periods that were sent", lambda schedule: schedule.fired),
        ("missed", "Periods that nobody sent in time", lambda schedule: schedule.missed),
    )
    yield from _each(CounterMetricFamily, "schedule", figures, {each.name: each for each in seen.schedules})


def _counters() -> list[Figure]:
    def reader(counted: str) -> Callable[[QueueView], float]:
        return lambda view: view.depth.counters.get(counted, 0)

    return [(name, help_, reader(counted)) for counted, (name, help_) in COUNTERS.items()]


def _each(family: Any, of: str, figures: Sequence[Figure], views: dict[str, Any]) -> Iterator[Metric]:
    for name, help_, read in figures:
        metric = family(f"millpond_{of}_{name}", help_, labels=[of])
        for labelled, view in views.items():
            metric.add_metric([labelled], read(view))
        yield metric


def _of_tasks(pools: Iterable[PoolView]) -> Iterator[Metric]:
    labels = ["pool", "kind"]
    ended = CounterMetricFamily("millpond_task_ended", "Runs, by how they ended", labels=[*labels, "state"])
    wait = HistogramMetricFamily("millpond_task_wait_seconds", "From sent, or due, to started", labels=labels)
    service = HistogramMetricFamily("millpond_task_service_seconds", "Time in the body", labels=labels)
    skipped = CounterMetricFamily(
        "millpond_task_events_skipped",
        "Tasks whose events were left out of the sample that Flower's own pages show",
        labels=["pool"],
    )
    for view in pools:
        skipped.add_metric([view.name], view.totals.left_out)
        for (state, kind), count in sorted(view.totals.ended.items()):
            ended.add_metric([view.name, kind, state], count)
        for family, histograms in ((wait, view.totals.wait), (service, view.totals.service)):
            for kind, histogram in sorted(histograms.items()):
                family.add_metric([view.name, kind], _buckets(histogram), histogram.seconds)
    yield from (ended, wait, service, skipped)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    below = dict(zip(NAMES, accumulate(histogram.counts), strict=True))
    exposed = [(str(bound), float(below[f"{bound:g}"])) for bound in EXPOSED]
    return [*exposed, ("+Inf", float(histogram.count))]
