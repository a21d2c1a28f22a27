"""One task walks a short way: the bound of what it calls, as `python -m tests.scenarios.life` counts it."""

from pathlib import Path

import pytest

from tests.scenarios.life.__main__ import count

#: Files, calls and changes of file: 39, 142 and 94 on threads before there was one executor.
MOST = {"threads": (20, 90, 45), "prefork": (24, 90, 50)}


@pytest.mark.parametrize("executor", list(MOST))
def test_a_tasks_life_in_a_batch_is_short(executor: str, tmp_path: Path) -> None:
    """From `send_many` to its settlement; what comes by the clock is shared by the tasks of the batch."""
    life, most = count(executor, tmp_path), MOST[executor]
    assert (life.files <= most[0], life.calls <= most[1], life.changes <= most[2]) == (True, True, True), (
        f"{life.files} files, {life.calls:.1f} calls, {life.changes:.1f} changes of file"
    )
