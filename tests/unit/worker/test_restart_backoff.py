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


def test_the_wait_doubles_with_each_early_death(now: list[float]) -> None:
    """The waits of a process that cannot start: half a second, then doubled, at most half a minute."""
    broken = ChildProcess("email", 1, _starts_nothing)
    waits = []
    for _ in range(9):
        broken.started_at = now[0]
        waits.append(broken.plan_restart(requested=False))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert broken.restart_at == now[0] + 30


def test_a_process_that_ran_for_a_while_is_restarted_at_once(now: list[float]) -> None:
    """Its earlier deaths do not count any more."""
    worker = ChildProcess("email", 1, _starts_nothing, early_deaths=5)
    worker.started_at = now[0] - child_process.STEADY_SECONDS
    assert worker.plan_restart(requested=False) == 0
    assert worker.early_deaths == 0


def test_a_replaced_process_is_restarted_at_once(now: list[float]) -> None:
    """SIGHUP replaces a process at once, even if it ran for less than `STEADY_SECONDS`."""
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
    """The exit code is written in words, for SIGKILL with the most frequent reason."""
    assert describe_exit(code) == said
