"""Prometheus metrics of the processes of one supervisor.

They cover this host only and come from files, so they are available while the broker is unreachable. Flower
has the metrics of the fleet under other names, so nothing is counted twice if both are scraped.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from millpond.broker.stats.heartbeats import Totals, parse_totals
from millpond.broker.stats.histogram import Histogram
from millpond.tasks.process.health import QUESTIONS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.process.metrics_file import read_metrics
from millpond.tasks.process.prometheus_text import Labels, Metric

Record = dict[str, Any]

#: Name, help, and a function that reads the value from a process's record.
GAUGES: tuple[tuple[str, str, Callable[[Record], float]], ...] = (
    ("slots", "Slots of the process", lambda record: record["slots"]),
    ("slots_busy", "Slots that run a task", lambda record: record["busy"]),
    ("in_flight", "Messages fetched and not settled", lambda record: record["in_flight"]),
)
COUNTERS: tuple[tuple[str, str, Callable[[Record], float]], ...] = (
    ("fetch_calls", "Round trips that settled and fetched", lambda record: record["totals"].fetch_calls),
    ("slot_seconds", "Slot-seconds available", lambda record: record["totals"].slot_seconds),
    ("busy_seconds", "Slot-seconds used", lambda record: record["totals"].busy_seconds),
    ("cpu_seconds", "CPU seconds of handlers", lambda record: record["totals"].cpu_seconds),
    (
        "task_events_skipped",
        "Tasks left out of the sample of events",
        lambda record: record["totals"].left_out,
    ),
    ("lease_renewals", "Leases renewed", lambda record: record["lease_renewals"]),
    ("leases_lost", "Leases expired", lambda record: record["leases_lost"]),
)


def supervisor_metrics(pools: Sequence[str], supervisor: int) -> Iterator[Metric]:
    """Yield the metrics of the processes of a supervisor."""
    yield from _health_metrics(pools, supervisor)
    records = [
        (
            {"pool": str(record["pool"]), "process": str(record["name"])},
            {**record, "totals": parse_totals(record["totals"])},
        )
        for record in read_metrics(supervisor)
    ]
    for name, help_, read in GAUGES:
        yield Metric(
            f"millpond_worker_{name}", "gauge", help_, [(labels, read(record)) for labels, record in records]
        )
    for name, help_, read in COUNTERS:
        yield Metric(
            f"millpond_worker_{name}",
            "counter",
            help_,
            [(labels, read(record)) for labels, record in records],
        )
    yield from _task_metrics([(labels, record["totals"]) for labels, record in records])


def _health_metrics(pools: Sequence[str], supervisor: int) -> Iterator[Metric]:
    """Yield a metric for each question of a health check."""
    health = {pool: judge_health(read_heartbeats(pool, pid=supervisor)) for pool in pools}
    for question in QUESTIONS:
        yield Metric(
            f"millpond_worker_{question}",
            "gauge",
            f"1 if the pool is {question} on this host",
            [({"pool": pool}, int(not report.faults(question))) for pool, report in health.items()],
        )


def _task_metrics(totals_of_each: Sequence[tuple[Labels, Totals]]) -> Iterator[Metric]:
    """Yield the metrics of runs by kind: how they ended, waits, times in the handler."""
    ended = [
        ({**labels, "kind": kind, "state": state}, count)
        for labels, totals in totals_of_each
        for (state, kind), count in sorted(totals.ended.items())
    ]
    yield Metric("millpond_worker_task_ended", "counter", "Runs ended, by state", ended)

    def of(name: str) -> list[tuple[Labels, Histogram]]:
        """Return the histograms with this name, each with its labels."""
        return [
            ({**labels, "kind": kind}, histogram)
            for labels, totals in totals_of_each
            for kind, histogram in sorted(getattr(totals, name).items())
        ]

    yield Metric(
        "millpond_worker_task_wait_seconds", "histogram", "Time from sent, or due, to started", of("wait")
    )
    yield Metric("millpond_worker_task_service_seconds", "histogram", "Time in the handler", of("service"))
