"""Chaos for a moment, and for minutes: no task is lost and none unexplained after any kill."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.chaos.forgetting import KINDS

ROOT = Path(__file__).parents[3]


def chaos(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run `python -m tests.scenarios.chaos` and return how it ended."""
    command = [sys.executable, "-m", "tests.scenarios.chaos", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_moment_of_chaos_loses_nothing() -> None:
    """A dozen faults over a thousand tasks: none lost, none early, none twice without a reason."""
    run = chaos("--seed", 7, "--tasks", 1_000, "--faults", 12, "--every", 0.8)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| lost " in run.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["transport", "app"])
def test_chaos_under_a_celery_application_loses_nothing(way: str) -> None:
    """Stock `celery worker`s on our transport, and the application under `--app`: as clean a ledger."""
    run = chaos("--transport", way, "--seed", 7, "--tasks", 1_000, "--faults", 10, "--every", 0.8)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| lost " in run.stdout


@pytest.mark.slow
@pytest.mark.evidence
@pytest.mark.timeout(900)
def test_minutes_of_chaos_lose_nothing() -> None:
    """A hundred faults over ten thousand tasks, likewise."""
    run = chaos("--seed", 8, "--tasks", 10_000, "--faults", 100)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_forgets_or_is_set_makes_nothing_up(kind: str, program: Callable[[str], str]) -> None:
    """Losses are of moments forgotten, nothing succeeds that did not run, and set clocks lose nothing."""
    if kind == "set clock":
        program("faketime")
    run = chaos("--seed", 9, "--tasks", 1_000, "--faults", 6, "--every", 2, "--only", kind)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| lost " in run.stdout
