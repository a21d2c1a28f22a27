"""The last line of `millpond drain`."""

import pytest

from millpond.monitor.cli.drain import _summary_line


@pytest.mark.parametrize(
    ("running", "processes", "state"),
    [
        (0, 0, "drained, no task runs, none of its processes is connected. Resume it"),
        (0, 1, "drained, no task runs, 1 process waits. Resume it"),
        (0, 2, "drained, no task runs, 2 processes wait. Resume it"),
        (3, 1, "drained, 3 still running. Check again"),
    ],
)
def test_the_last_line_counts_what_runs_and_what_waits(running: int, processes: int, state: str) -> None:
    """It names the tasks that still run, or else the processes, one of them in the singular."""
    assert _summary_line("email", running, processes).startswith(f"email: {state}")
