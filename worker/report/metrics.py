"""Prometheus metrics of the processes of one supervisor.

They cover this host only and come from files, so they are available while the broker is unreachable. The
metrics of the fleet, which Flower serves, have other names, so nothing is counted twice if both are scraped.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from millpond.broker.stats.heartbeats import parse_totals
from millpond.tasks.process.health import HEALTH_CHECKS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.process.prometheus_text import Labels, Metric
from millpond.tasks.process.run_metrics import run_metrics
from millpond.worker.report.metrics_file import read_metrics

#: The content of a process's metrics file, with its totals parsed.
Record = dict[str, Any]

#: Name, type and help of each metric, and the function that reads its value from a process's record.
METRICS: tuple[tuple[str, Literal["gauge", "counter"], str, Callable[[Record], float]], ...] = (
    ("slots", "gauge", "Slots of the process", lambda record: record["slots"]),
    ("slots_busy", "gauge", "Slots that run a task", lambda record: record["busy"]),
    ("in_flight", "gauge", "Messages fetched and not settled", lambda record: record["in_flight"]),
    (
        "fetch_calls",
        "counter",
        "Round trips that settled and fetched",
        lambda record: record["totals"].fetch_calls,
    ),
    ("slot_seconds", "counter", "Slot-seconds available", lambda record: record["totals"].slot_seconds),
    ("busy_seconds", "counter", "Slot-seconds used", lambda record: record["totals"].busy_seconds),
    ("cpu_seconds", "counter", "CPU seconds of handlers", lambda record: record["totals"].cpu_seconds),
    (
        "task_events_skipped",
        "counter",
        "Tasks left out of the sample of events",
        lambda record: record["totals"].left_out,
    ),
    ("lease_renewals", "counter", "Leases renewed", lambda record: record["lease_renewals"]),
    ("leases_lost", "counter", "Leases expired", lambda record: record["leases_lost"]),
)


def supervisor_metrics(pools: Sequence[str], supervisor_pid: int) -> Iterator[Metric]:
    """Yield the metrics of the pools and the processes of a supervisor."""
    yield from _health_metrics(pools, supervisor_pid)
    records: list[tuple[Labels, Record]] = [
        (
            {"pool": str(record["pool"]), "process": str(record["name"])},
            {**record, "totals": parse_totals(record["totals"])},
        )
        for record in read_metrics(supervisor_pid)
    ]
    for name, type_, help_, read in METRICS:
        samples = [(labels, read(record)) for labels, record in records]
        yield Metric(f"millpond_worker_{name}", type_, help_, samples)
    yield from run_metrics("millpond_worker_task", [(labels, record["totals"]) for labels, record in records])


def _health_metrics(pools: Sequence[str], supervisor_pid: int) -> Iterator[Metric]:
    """Yield a metric for each health check, with a sample for each pool."""
    health = {pool: judge_health(read_heartbeats(pool, pid=supervisor_pid)) for pool in pools}
    for check in HEALTH_CHECKS:
        yield Metric(
            f"millpond_worker_{check}",
            "gauge",
            f"1 if the pool is {check} on this host",
            [({"pool": pool}, int(not pool_health.faults(check))) for pool, pool_health in health.items()],
        )
