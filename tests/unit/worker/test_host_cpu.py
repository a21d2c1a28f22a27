"""The shares of time in which processors are busy, from the counts of the kernel."""

from pathlib import Path

import pytest

from millpond.worker.report.host_cpu import SAMPLES, SampledShare, read_host_ticks, read_loop_seconds
from millpond.worker.report.thread_activity import Clock


def test_the_share_covers_the_last_samples(tmp_path: Path) -> None:
    """It is 0 at first, then the share of the ticks since the first of the last ten samples."""
    stat = tmp_path / "stat"

    def count(busy: int, idle: int, waiting: int) -> None:
        stat.write_text(f"cpu  {busy} 0 0 {idle} {waiting} 0 0 0 99 99\ncpu0 1 2 3\n")

    processors = SampledShare(lambda: read_host_ticks(stat))
    assert processors.sample() == 0.0
    count(100, 100, 0)
    assert processors.sample() == 0.0
    count(175, 120, 5)
    assert processors.sample() == 0.75
    for n in range(1, SAMPLES + 1):
        count(175 + 100 * n, 120, 5)
        share = processors.sample()
    assert share == 1.0


def test_a_main_thread_that_computes_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share is the time that the main thread ran, without the time that it waited for a processor."""
    clocks, times = iter([Clock(1.0, 0.5), Clock(1.9, 0.6)]), iter([10.0, 11.0])
    monkeypatch.setattr("millpond.worker.report.host_cpu.thread_clock", lambda _: next(clocks))
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    loop = SampledShare(read_loop_seconds)
    assert loop.sample() == 0.0
    assert loop.sample() == pytest.approx(0.9)
