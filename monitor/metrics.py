"""Prometheus metrics of queues, pools and tasks, from Redis.

All counters are of the whole fleet and kept in Redis: they survive restarts of workers and of Flower, and
one place is scraped. The labels are queues, pools, kinds and states: their number does not grow with the
tasks.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.monitor.diagnosis import diagnose_all
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.snapshot import PoolView, QueueView, Snapshot, read_snapshot
from millpond.tasks.pools import PoolsTable
from millpond.tasks.process import prometheus_text
from millpond.tasks.process.prometheus_text import Labels, Metric
from millpond.tasks.process.run_metrics import run_metrics

#: Name, help, and a function that reads the value from a view.
Figure = tuple[str, str, Callable[[Any], float]]

QUEUE_GAUGES: tuple[Figure, ...] = (
    ("ready", "Messages ready to be fetched", lambda view: view.depth.ready),
    ("bound", "Bound of the queue in messages; 0 is no bound", lambda view: view.limits.bound),
    ("in_flight", "Messages fetched and not settled", lambda view: view.depth.in_flight),
    ("delayed", "Messages that are not due yet", lambda view: view.depth.delayed),
    ("dead", "Dead letters", lambda view: view.depth.dead),
    ("consumers", "Consumers with a lease", lambda view: view.depth.consumers),
    ("paused", "1 if the queue is paused", lambda view: int(view.limits.paused)),
    (
        "oldest_age_seconds",
        "Age of the next message to be fetched",
        lambda view: view.depth.oldest_seconds or 0.0,
    ),
)

POOL_GAUGES: tuple[Figure, ...] = (
    ("processes", "Processes with a heartbeat", lambda view: len(view.running)),
    ("processes_missing", "Processes of the pools table without a heartbeat", lambda v: v.processes_missing),
    ("slots", "Slots of the processes", lambda view: view.slots),
    ("slots_busy", "Slots that run a task", lambda view: view.busy),
)

POOL_COUNTERS: tuple[Figure, ...] = (
    ("slot_seconds", "Slot-seconds available", lambda view: view.totals.slot_seconds),
    ("busy_seconds", "Slot-seconds used", lambda view: view.totals.busy_seconds),
    ("fetch_calls", "Round trips that settled and fetched", lambda view: view.totals.fetch_calls),
)

#: Counter of a queue in Redis -> name and help of the metric.
QUEUE_COUNTERS = {
    "published": ("published", "Messages published"),
    "duplicates": ("duplicates", "Messages not published: a task of the same unique key was there"),
    "refused": (
        "rejected",
        "Messages rejected: the queue was full, the batch closed or the deadline too near",
    ),
    "shed": ("shed", "Messages pushed out of a full queue by newer ones"),
    "fetched": ("fetched", "Messages fetched by consumers"),
    "settled": ("settled", "Messages settled for good"),
    "retried": ("retried", "Messages retried"),
    "redelivered": ("redelivered", "Messages redelivered, with a delivery counted"),
    "returned": ("released", "Messages released without counting a delivery"),
    "late": ("stale_outcomes", "Outcomes ignored because another consumer had the message"),
    "dead": ("dead_lettered", "Messages moved to the dead letters"),
    "requeued": ("requeued", "Dead letters requeued"),
    "renewed": ("lease_renewals", "Leases renewed"),
    "leases_lost": ("leases_lost", "Leases expired"),
    "forgotten": ("forgotten_deliveries", "Deliveries that the broker made and forgot: an older copy of it"),
    "orphaned": ("orphaned_messages", "Messages in flight found again after the consumers were deleted"),
}


def read_metrics(store: Store, pools_table: PoolsTable) -> bytes:
    """Read all figures and return the metrics in Prometheus' text format, also if the broker is away."""
    try:
        snapshot = read_snapshot(store, pools_table)
        return metrics_text(snapshot, diagnose_all(store, snapshot))
    except BrokerError as error:
        return metrics_text(error)


def metrics_text(snapshot: Snapshot | BrokerError, diagnoses: Sequence[Diagnosis] = ()) -> bytes:
    """Return the metrics in Prometheus' text format.

    If the snapshot could not be read, `snapshot` is its error, and the only metric is `millpond_broker_up` 0.
    """
    return prometheus_text.format_metrics([*_all_metrics(snapshot), *_diagnosis_metrics(diagnoses)])


def _all_metrics(snapshot: Snapshot | BrokerError) -> Iterator[Metric]:
    """Yield the metrics of the broker, and of its queues, pools, tasks and schedules."""
    is_up = not isinstance(snapshot, BrokerError)
    yield _flag_metric("millpond_broker_up", "1 if the broker answers", is_up)
    if isinstance(snapshot, BrokerError):
        return
    yield _flag_metric("millpond_broker_writable", "1 if the broker takes writes", snapshot.refusal is None)
    queues = {view.name: view for view in snapshot.queues}
    pools = {view.name: view for view in snapshot.pools}
    yield from _labelled_metrics("gauge", "queue", QUEUE_GAUGES, queues)
    yield from _labelled_metrics("counter", "queue", _queue_counters(), queues)
    yield from _labelled_metrics("gauge", "pool", POOL_GAUGES, pools)
    yield from _labelled_metrics("counter", "pool", POOL_COUNTERS, pools)
    yield from _task_metrics(snapshot.pools)
    yield from _schedule_metrics(snapshot)


def _diagnosis_metrics(diagnoses: Sequence[Diagnosis]) -> Iterator[Metric]:
    """Yield the metrics of the diagnoses: the state of each pool, its words, and its measurements."""
    if not diagnoses:
        return
    states: list[tuple[Labels, float]] = [
        ({"pool": diagnosis.pool, "state": diagnosis.state, "name": diagnosis.name}, 1)
        for diagnosis in diagnoses
    ]
    yield Metric(
        "millpond_pool_state", "gauge", "1 for the state of the pool that `millpond why` shows", states
    )
    yield Metric(
        "millpond_pool_words",
        "gauge",
        "The words of `millpond why` on a pool that is behind, with its figures rounded",
        [
            ({"pool": diagnosis.pool, "words": _rounded_words(diagnosis)}, 1)
            for diagnosis in diagnoses
            if not diagnosis.is_calm
        ],
    )
    for name, help_ in (
        ("elasticity", "Growth of throughput with slots, measured: 1 proportional, 0 none"),
        ("slots_wanted", "Slots that would suffice"),
        ("probe_seconds", "Seconds of the pool's rate that measuring it cost in this hour"),
        ("predicted_rate", "Predicted ends a second with the slots wanted"),
    ):
        values = [({"pool": diagnosis.pool}, getattr(diagnosis, name)) for diagnosis in diagnoses]
        measured: list[tuple[Labels, float]] = [
            (labels, value) for labels, value in values if value is not None
        ]
        yield Metric(f"millpond_pool_{name}", "gauge", help_, measured)


def _rounded_words(diagnosis: Diagnosis) -> str:
    """Return the words of a diagnosis with its figures rounded to one digit.

    Otherwise the label, and with it the time series, would be another one at each scrape.
    """
    return _FIGURE.sub(_round_to_one_digit, f"{diagnosis.why}; {diagnosis.advice}")


def _round_to_one_digit(figure: re.Match[str]) -> str:
    """Return the figure of a match, rounded to its first digit: `1,234.5` becomes `1000`."""
    return format(float(format(float(figure[0].replace(",", "")), ".0g")), "g")


#: A number that is no part of an address or a name.
_FIGURE = re.compile(r"(?<![\w.:])\d[\d,]*(?:\.\d+)?(?![\w:]|\.\d)")


def _schedule_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the metrics of schedules. There are none without schedules, which need no scheduler."""
    if not snapshot.schedules:
        return
    yield _flag_metric("millpond_scheduler_up", "1 if a scheduler leads", snapshot.leader is not None)
    figures: tuple[Figure, ...] = (
        ("fired", "Periods fired", lambda schedule: schedule.fired),
        ("missed", "Periods missed", lambda schedule: schedule.missed),
    )
    schedules = {schedule.name: schedule for schedule in snapshot.schedules}
    yield from _labelled_metrics("counter", "schedule", figures, schedules)


def _queue_counters() -> list[Figure]:
    """Return a figure for each counter of a queue."""

    def reader(counter: str) -> Callable[[QueueView], float]:
        return lambda view: view.depth.counters.get(counter, 0)

    return [(name, help_, reader(counter)) for counter, (name, help_) in QUEUE_COUNTERS.items()]


def _flag_metric(name: str, help_: str, value: bool) -> Metric:
    """Return a gauge without labels that is 1 for true and 0 for false."""
    return Metric(name, "gauge", help_, [({}, int(value))])


def _labelled_metrics(
    metric_type: Literal["counter", "gauge"],
    label: str,
    figures: Sequence[Figure],
    views: Mapping[str, Any],
) -> Iterator[Metric]:
    """Yield one metric for each figure, with one sample for each view. The keys of `views` are the label."""
    for name, help_, read in figures:
        samples = [({label: label_value}, read(view)) for label_value, view in views.items()]
        yield Metric(f"millpond_{label}_{name}", metric_type, help_, samples)


def _task_metrics(pools: Sequence[PoolView]) -> Iterator[Metric]:
    """Yield the metrics of runs by kind and pool, and of the tasks whose events were not sent."""
    yield from run_metrics("millpond_task", [({"pool": view.name}, view.totals) for view in pools])
    yield Metric(
        "millpond_task_events_skipped",
        "counter",
        "Tasks left out of the sample of events on Flower's own pages",
        [({"pool": view.name}, view.totals.left_out) for view in pools],
    )
