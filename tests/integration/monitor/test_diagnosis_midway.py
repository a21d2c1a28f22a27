"""A few bottlenecks and midway changes of the scenario, on real pools; the scenario has all of them."""

import os
from pathlib import Path

import pytest

from tests.scenarios.bottlenecks.cases import cases
from tests.scenarios.bottlenecks.changes import run as run_changes
from tests.scenarios.bottlenecks.running import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_dependency_that_becomes_slow_and_recovers_is_seen_in_time(tmp_path: Path) -> None:
    """Healthy, with a slow dependency, healthy again: a pool gets each verdict within half a minute."""
    for phase in run_changes(tmp_path, "threads", most=3):
        assert phase.is_right, phase.line


BOTTLENECKS = [
    "a service of 1 at a time, threads",
    "twenty calls for a task, prefork",
    "the pool is drained, threads",
    "one slot that waits for something of its own, threads",
]
FOR_THE_RECORD = [
    "a service for all, threads",
    "a rate limit, threads",
    "tasks too short, threads",
    "handlers compute, threads",
    "handlers compute, prefork",
    "a producer slower than the pool, threads",
]


@pytest.mark.parametrize(
    "label", [*BOTTLENECKS, *(pytest.param(label, marks=pytest.mark.evidence) for label in FOR_THE_RECORD)]
)
def test_a_known_bottleneck_is_named(label: str, tmp_path: Path) -> None:
    """The verdict names the bottleneck within a minute; it is `workers` where more slots bring more, only."""
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip("others use the processors: what is said then is that slots wait for these")
    [case] = [case for case in cases() if case.label == label]
    seen = run(case, tmp_path, truth=False)
    assert seen.right, seen.line
