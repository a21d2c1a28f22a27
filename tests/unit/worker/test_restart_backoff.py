"""The time at which a dead process is started again, and its log lines."""

import signal

import pytest

from millpond.worker.supervise import child_process
from millpond.worker.supervise.child_process import ChildProcess, describe_exit


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the module, stopped at `now[0]` seconds."""
    clock = [1_000.0]
    monkeypatch.setattr(child_process, "monotonic", lambda: clock[0])
    return clock


def _starts_nothing(ready_fd: int) -> list[str]:
    raise AssertionError("not started here")


def test_one_that_dies_at_once_waits_twice_as_long_each_time(now: list[float]) -> None:
    """A process that cannot start takes no processor: half a second, then doubled, at most half a minute."""
    broken = ChildProcess("email", 1, _starts_nothing)
    waits = []
    for _ in range(9):
        broken.started_at = now[0]
        waits.append(broken.plan_restart(requested=False))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert broken.restart_at == now[0] + 30


def test_one_that_ran_for_a_while_starts_at_once(now: list[float]) -> None:
    """A worker that was killed after hours is replaced at once, its earlier failures forgotten."""
    worker = ChildProcess("email", 1, _starts_nothing, early_deaths=5)
    worker.started_at = now[0] - child_process.STEADY_SECONDS
    assert worker.plan_restart(requested=False) == 0
    assert worker.early_deaths == 0


def test_one_that_was_asked_to_go_starts_at_once(now: list[float]) -> None:
    """SIGHUP replaces processes, however young they are."""
    worker = ChildProcess("email", 1, _starts_nothing)
    worker.started_at = now[0]
    assert worker.plan_restart(requested=True) == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "ended by itself"),
        (3, "ended with exit code 3"),
        (-signal.SIGTERM, "was killed by SIGTERM"),
        (-signal.SIGKILL, "was killed by SIGKILL (by the kernel, if memory is short)"),
    ],
)
def test_the_log_says_how_it_ended(code: int, said: str) -> None:
    """A return code is told in words, and a SIGKILL with its most frequent reason."""
    assert describe_exit(code) == said
