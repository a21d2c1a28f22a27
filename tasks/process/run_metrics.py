"""Prometheus metrics of the runs of tasks, from the totals of pools or of processes."""

from collections.abc import Iterator, Sequence

from millpond.broker.stats.heartbeats import Totals
from millpond.broker.stats.histogram import Histogram
from millpond.tasks.process.prometheus_text import Labels, Metric


def run_metrics(prefix: str, all_totals: Sequence[tuple[Labels, Totals]]) -> Iterator[Metric]:
    """Yield the metrics of runs by kind: how they ended, their waits, and their times in the handler.

    `prefix` begins the names of the metrics. Each of the totals has labels, to which the kind is added.
    """
    ended = [
        ({"kind": kind, **labels, "state": state}, count)
        for labels, totals in all_totals
        for (state, kind), count in sorted(totals.ended.items())
    ]
    yield Metric(f"{prefix}_ended", "counter", "Runs ended, by state", ended)

    def histograms_of(field: str) -> list[tuple[Labels, Histogram]]:
        """Return the histograms of one field of the totals, each with its labels."""
        return [
            ({"kind": kind, **labels}, histogram)
            for labels, totals in all_totals
            for kind, histogram in sorted(getattr(totals, field).items())
        ]

    waits, services = histograms_of("wait"), histograms_of("service")
    yield Metric(f"{prefix}_wait_seconds", "histogram", "Time from sent, or due, to started", waits)
    yield Metric(f"{prefix}_service_seconds", "histogram", "Time in the handler", services)
