"""One task walks a short way: the bound of what it calls, as `python -m tests.scenarios.life` counts it."""

from pathlib import Path

import pytest

from tests.scenarios.life.__main__ import count

#: Files, calls and changes of file: 39, 142 and 94 on threads before there was one executor.
MOST = {"threads": (20, 90, 45), "prefork": (22, 90, 45)}


#: A busy machine cuts a batch into smaller pieces, and a task carries more of their cost: the best count is
#: right.
TRIES = 4


@pytest.mark.parametrize("executor", list(MOST))
def test_a_tasks_life_in_a_batch_is_short(executor: str, tmp_path: Path) -> None:
    """From `send_many` to its settlement; what comes by the clock is shared by the tasks of the batch."""
    most, seen = MOST[executor], []
    for n in range(TRIES):
        life = count(executor, tmp_path / str(n))
        seen.append((life.files, round(life.calls, 1), round(life.changes, 1)))
        if all(found <= bound for found, bound in zip(seen[-1], most, strict=True)):
            return
    pytest.fail(f"files, calls, changes of file: {seen}, and at most {most} is right")
