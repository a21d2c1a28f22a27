"""Prometheus metrics of the processes of one supervisor.

They cover this host only and come from files, so they are available while the broker is unreachable. The
metrics of the fleet, which Flower serves, have other names, so nothing is counted twice if both are scraped.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from millpond.broker.stats.heartbeats import Totals, parse_totals
from millpond.tasks.process.health import HEALTH_CHECKS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.process.prometheus_text import Labels, Metric
from millpond.tasks.process.run_metrics import run_metrics
from millpond.worker.report.metrics_file import read_metrics

#: Name, type and help of each metric, and the name of its value in a process's record.
METRICS: tuple[tuple[str, Literal["gauge", "counter"], str, str], ...] = (
    ("slots", "gauge", "Slots of the process", "slots"),
    ("slots_busy", "gauge", "Slots that run a task", "busy"),
    ("in_flight", "gauge", "Messages fetched and not settled", "in_flight"),
    ("fetch_calls", "counter", "Round trips that settled and fetched", "fetch_calls"),
    ("slot_seconds", "counter", "Slot-seconds available", "slot_seconds"),
    ("busy_seconds", "counter", "Slot-seconds used", "busy_seconds"),
    ("cpu_seconds", "counter", "CPU seconds of handlers", "cpu_seconds"),
    ("task_events_skipped", "counter", "Tasks left out of the sample of events", "left_out"),
    ("lease_renewals", "counter", "Leases renewed", "lease_renewals"),
    ("leases_lost", "counter", "Leases expired", "leases_lost"),
)


def supervisor_metrics(pools: Sequence[str], supervisor_pid: int) -> Iterator[Metric]:
    """Yield the metrics of the pools and the processes of a supervisor."""
    yield from _health_metrics(pools, supervisor_pid)
    processes: list[tuple[Labels, Mapping[str, Any], Totals]] = [
        (
            {"pool": str(record["pool"]), "process": str(record["name"])},
            record,
            parse_totals(record["totals"]),
        )
        for record in read_metrics(supervisor_pid)
    ]
    for name, type_, help_, value in METRICS:
        samples = [(labels, {**record, **vars(totals)}[value]) for labels, record, totals in processes]
        yield Metric(f"millpond_worker_{name}", type_, help_, samples)
    yield from run_metrics("millpond_worker_task", [(labels, totals) for labels, _, totals in processes])


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
