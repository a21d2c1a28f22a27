"""Write what the processes of a supervisor did, and how they are, as Prometheus reads it.

Of this host alone, from files, so it is told also while the broker is away. Flower tells the figures of the
fleet; the names differ, so that nothing is counted twice where both are scraped.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from millpond.broker.stats.heartbeats import Totals, totals_from
from millpond.broker.stats.histogram import Histogram
from millpond.tasks.process.health import QUESTIONS, judge
from millpond.tasks.process.heartbeat_file import heartbeats
from millpond.tasks.process.metrics_file import read_metrics
from millpond.tasks.process.prometheus_text import Labels, Metric

Said = dict[str, Any]

#: Name, help, and how it is read off what a process said.
GAUGES: tuple[tuple[str, str, Callable[[Said], float]], ...] = (
    ("slots", "Tasks that the process can run at once", lambda said: said["slots"]),
    ("slots_busy", "Tasks that run", lambda said: said["busy"]),
    ("in_flight", "Messages in flight", lambda said: said["in_flight"]),
)
COUNTERS: tuple[tuple[str, str, Callable[[Said], float]], ...] = (
    ("fetch_calls", "Round trips that settled and fetched", lambda said: said["totals"].fetch_calls),
    ("slot_seconds", "Time that slots were there", lambda said: said["totals"].slot_seconds),
    ("busy_seconds", "Time that slots ran something", lambda said: said["totals"].busy_seconds),
    ("cpu_seconds", "Time that bodies were on a processor", lambda said: said["totals"].cpu_seconds),
    ("task_events_skipped", "Tasks left out of the sample of events", lambda said: said["totals"].left_out),
    ("lease_renewals", "Renewals of leases", lambda said: said["lease_renewals"]),
    ("leases_lost", "Leases that ran out", lambda said: said["leases_lost"]),
)


def metrics(pools: Sequence[str], supervisor: int) -> Iterator[Metric]:
    """Yield the metrics of the processes of a supervisor."""
    yield from _health(pools, supervisor)
    found = [
        (
            {"pool": str(said["pool"]), "process": str(said["name"])},
            {**said, "totals": totals_from(said["totals"])},
        )
        for said in read_metrics(supervisor)
    ]
    for name, help_, read in GAUGES:
        yield Metric(
            f"millpond_worker_{name}", "gauge", help_, [(labels, read(said)) for labels, said in found]
        )
    for name, help_, read in COUNTERS:
        yield Metric(
            f"millpond_worker_{name}", "counter", help_, [(labels, read(said)) for labels, said in found]
        )
    yield from _tasks([(labels, said["totals"]) for labels, said in found])


def _health(pools: Sequence[str], supervisor: int) -> Iterator[Metric]:
    health = {pool: judge(heartbeats(pool, pid=supervisor)) for pool in pools}
    for question in QUESTIONS:
        yield Metric(
            f"millpond_worker_{question}",
            "gauge",
            f"Whether the pool is {question} on this host",
            [({"pool": pool}, int(not found.faults(question))) for pool, found in health.items()],
        )


def _tasks(found: Sequence[tuple[Labels, Totals]]) -> Iterator[Metric]:
    ended = [
        ({**labels, "kind": kind, "state": state}, count)
        for labels, totals in found
        for (state, kind), count in sorted(totals.ended.items())
    ]
    yield Metric("millpond_worker_task_ended", "counter", "Runs, by how they ended", ended)

    def of(name: str) -> list[tuple[Labels, Histogram]]:
        return [
            ({**labels, "kind": kind}, histogram)
            for labels, totals in found
            for kind, histogram in sorted(getattr(totals, name).items())
        ]

    yield Metric(
        "millpond_worker_task_wait_seconds", "histogram", "From sent, or due, to started", of("wait")
    )
    yield Metric("millpond_worker_task_service_seconds", "histogram", "Time in the body", of("service"))
