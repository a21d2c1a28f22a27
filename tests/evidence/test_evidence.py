"""The runs of this folder, smaller: what they assert holds."""

from pathlib import Path

import pytest

from tests.evidence import drains, halfway, million

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_killed_reader_resumes_without_a_gap_or_a_repetition(kinds_path: None, tmp_path: Path) -> None:
    """Of 20,000 results none is missing and none comes twice; producer and reader stay small."""
    found = million.run(20_000, tmp_path)
    for who in ("producer", "reader"):
        assert found[f"{who} peak MB"] - found[f"{who} at start MB"] < 20


def test_nothing_starts_once_a_cancellation_is_acknowledged(kinds_path: None, tmp_path: Path) -> None:
    """Cancelled half-way through 10,000 in two processes: what had started finished; the counts add up."""
    halfway.run(10_000, tmp_path)


def test_drains_under_load_lose_nothing_and_count_no_delivery(kinds_path: None, tmp_path: Path) -> None:
    """Six drains in a row, with a task that does not end: each within its deadline, nothing run twice."""
    found = drains.run(6, tmp_path)
    assert found["exit after SIGTERM, s: longest"] < 11
