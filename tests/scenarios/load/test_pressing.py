"""Producers that press on a bounded queue from many processes: the bound holds, nothing accepted is lost."""

import os
from pathlib import Path
from typing import get_args

import pytest

from millpond.tasks.pools import Overflow
from tests.scenarios.load.measure import pool, press


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # restore it after the load


def test_all_policies_at_once_keep_the_bound_and_lose_nothing(tmp_path: Path) -> None:
    """A process of each policy presses on one queue: never above its bound, each task run once or shed."""
    with pool(tmp_path, bound=10, pace=0.05, prefetch=0) as running:
        pressed = press(running, tmp_path, get_args(Overflow), threads=2, seconds=2)
    assert (pressed.lost, pressed.twice) == (0, 0)
    assert pressed.high_water <= 10
    assert pressed.refused + pressed.ran_here + pressed.shed > 0


@pytest.mark.slow
@pytest.mark.evidence
@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", get_args(Overflow))
def test_eight_processes_press_for_a_minute(policy: str, tmp_path: Path) -> None:
    """A hundred producers in eight processes: the bound holds, nothing is lost, each waits its turn.

    Every producer is called within twice the fair wait, and none sees others called twice. After its call a
    sender waits for its thread to run: 99 of 100 are in time, on a busy machine too.
    """
    with pool(tmp_path, bound=1_000, prefetch=0) as running:
        pressed = press(running, tmp_path, [policy] * 8, threads=13, seconds=60)
    assert (pressed.lost, pressed.twice) == (0, 0)
    assert pressed.high_water == 1_000
    if policy == "block":
        assert pressed.most_called_before < 2 * pressed.producers
        assert pressed.longest_in_line <= 2 * pressed.fair_wait
        assert pressed.wait(99) <= 2 * pressed.fair_wait
