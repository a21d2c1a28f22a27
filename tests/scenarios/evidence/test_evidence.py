"""The runs of this folder at a smaller size: their assertions hold."""

from pathlib import Path

import pytest

from tests.scenarios.evidence import delayed, drains, halfway, million, watching

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_killed_reader_resumes_without_a_gap_or_a_repetition(kinds_path: None, tmp_path: Path) -> None:
    """Of 20,000 results none is missing and none comes twice; producer and reader stay small."""
    found = million.run(20_000, tmp_path)
    for who in ("producer", "reader"):
        assert found[f"{who} peak MB"] - found[f"{who} at start MB"] < 20


@pytest.mark.evidence
@pytest.mark.timeout(3_600)
def test_a_million_stream_through_a_bound_of_a_thousand(kinds_path: None, tmp_path: Path) -> None:
    """At full size the same holds: memory is flat, for at most a thousand wait and the producer waits too."""
    found = million.run(1_000_000, tmp_path)
    assert found["most that waited"] == million.BOUND == 1_000
    for who in ("producer", "reader"):
        assert found[f"{who} peak MB"] - found[f"{who} at start MB"] < 20


def test_nothing_starts_once_a_cancellation_is_acknowledged(kinds_path: None, tmp_path: Path) -> None:
    """Cancelled half-way through 10,000 tasks in two processes: started ones finish; the counts add up."""
    halfway.run(10_000, tmp_path)


def test_drains_under_load_lose_nothing_and_count_no_delivery(kinds_path: None, tmp_path: Path) -> None:
    """Six drains in a row, with a task that does not end: each within its deadline, nothing run twice."""
    found = drains.run(6, tmp_path)
    assert found["exit after SIGTERM, s: longest"] < 11


def test_flower_hears_of_every_task_and_is_right_when_started_again(kinds_path: None, tmp_path: Path) -> None:
    """Of 6,000 tasks it hears every end; the first page of a new Flower has the counters of all of them."""
    watching.run(6_000, tmp_path)


def test_delayed_tasks_cost_an_idle_worker_nothing(kinds_path: None, tmp_path: Path) -> None:
    """While 20,000 tasks wait for hours, a worker's memory is as before, and a task soon due starts soon."""
    found = delayed.run(20_000, tmp_path, look_seconds=4, times=7)
    assert found["due in a second, ended so many ms after: median"] < 500
