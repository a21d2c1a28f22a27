"""How busy a host is, from the counts of its kernel."""

from pathlib import Path

from millpond.worker.report.host_cpu import SAMPLES, HostCpu


def test_the_share_is_of_the_last_looks(tmp_path: Path) -> None:
    """Unknown at first, then of the ticks since the last look, and no further back than ten of them."""
    stat = tmp_path / "stat"

    def count(busy: int, idle: int, waiting: int) -> None:
        stat.write_text(f"cpu  {busy} 0 0 {idle} {waiting} 0 0 0 99 99\ncpu0 1 2 3\n")

    processors = HostCpu(stat)
    assert processors.sample_busy_share() == 0.0
    count(100, 100, 0)
    assert processors.sample_busy_share() == 0.0
    count(175, 120, 5)
    assert processors.sample_busy_share() == 0.75
    for n in range(1, SAMPLES + 1):
        count(175 + 100 * n, 120, 5)
        share = processors.sample_busy_share()
    assert share == 1.0
