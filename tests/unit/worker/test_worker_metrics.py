"""A supervisor's metrics of its processes, read as Prometheus reads them."""

import os
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from millpond.broker.stats.histogram import BOUNDS, Histogram
from millpond.tasks.process.paths import private_scratch_folder
from millpond.tasks.process.prometheus_text import Metric, format_metrics
from millpond.worker.report.metrics import supervisor_metrics
from millpond.worker.report.metrics_file import MetricsFile, read_metrics

FIGURES = {
    "name": "default.1@here",
    "pool": "default",
    "slots": 4,
    "busy": 3,
    "in_flight": 5,
    "lease_renewals": 7,
    "leases_lost": 1,
    "totals": {
        "turns": 9,
        "busy_us": 2_500_000,
        "ended:succeeded:a": 2,
        "service:0.05:a": 2,
        "service:us:a": 80_000,
    },
}
pytestmark = pytest.mark.usefixtures("scratch")


def samples(text: bytes) -> dict[tuple[str, str], float]:
    """Return values by name and the label that differs."""
    families = text_string_to_metric_families(text.decode())
    return {
        (
            each.name,
            each.labels.get("le") or each.labels.get("state") or each.labels.get("pool", ""),
        ): each.value
        for family in families
        for each in family.samples
    }


def test_a_supervisor_has_the_metrics_of_its_process() -> None:
    """Slots, round trips, leases, ends and times of a process; and that a pool without one is not live."""
    file = MetricsFile()
    file.write(FIGURES)
    found = samples(format_metrics(supervisor_metrics(["default"], os.getppid())))
    assert found["millpond_worker_slots_busy", "default"] == 3
    assert found["millpond_worker_fetch_calls_total", "default"] == 9
    assert found["millpond_worker_lease_renewals_total", "default"] == 7
    assert found["millpond_worker_leases_lost_total", "default"] == 1
    assert found["millpond_worker_busy_seconds_total", "default"] == 2.5
    assert found["millpond_worker_task_ended_total", "succeeded"] == 2
    assert found["millpond_worker_task_service_seconds_bucket", "0.02"] == 0
    assert found["millpond_worker_task_service_seconds_bucket", "0.05"] == 2
    assert found["millpond_worker_live", "default"] == 0
    assert list(read_metrics(os.getpid())) == []
    file.remove()
    assert list(read_metrics(os.getppid())) == []


def test_the_unfinished_file_of_a_killed_process_is_removed() -> None:
    """That of a living process is kept: it is being written."""
    file = MetricsFile()
    file.write(FIGURES)
    folder = private_scratch_folder() / "metrics"
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (folder / f"{pid}.new").write_text('{"pid": ')
    assert len(list(read_metrics(os.getppid()))) == 1
    assert {path.name for path in folder.iterdir()} == {str(os.getpid()), f"{os.getpid()}.new"}


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Another user may make one in the shared scratch folder; nothing is written or removed behind it."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "metrics").mkdir(mode=0o700, parents=True)
    victim = elsewhere / "metrics" / str(os.getpid())
    victim.write_text("{}")
    private_scratch_folder().symlink_to(elsewhere)
    MetricsFile().write({"slots": 1})
    assert list(read_metrics(os.getppid())) == []
    assert victim.read_text() == "{}"
    assert [path.name for path in elsewhere.rglob("*")] == ["metrics", victim.name]


def test_any_text_may_be_in_a_label() -> None:
    """Quotes, backslashes and line ends come through; so does a run longer than any bucket."""
    hostile, long = 'a"b\\c\nd', Histogram((0,) * len(BOUNDS) + (1,), 9e9)
    text = format_metrics([Metric("took", "histogram", "How long", [({"kind": hostile}, long)])])
    [family] = text_string_to_metric_families(text.decode())
    assert {sample.labels["kind"] for sample in family.samples} == {hostile}
    counts = {sample.labels.get("le"): sample.value for sample in family.samples}
    assert (counts["1000.0"], counts["+Inf"]) == (0, 1)
