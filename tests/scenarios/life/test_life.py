"""One task takes a short way: the bound of its calls, as `python -m tests.scenarios.life` counts them."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.scenarios.life.__main__ import count

#: Files, calls and changes of file: 39, 142 and 94 on threads before there was one executor. The aim is
#: 20, 90 and 45, as a quiet machine counts. The bound is higher: a busy or slow one cuts a batch into smaller
#: pieces, and a task carries more of their cost. The best count is right.
MOST = (23, 90, 48)
BATCHES = 6


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_tasks_life_in_a_batch_is_short(executor: str, tmp_path: Path) -> None:
    """From `send_many` to its settlement; periodic calls are shared by the tasks of the batch."""
    seen = []
    with closing(count(executor, tmp_path, BATCHES)) as lives:
        for life in lives:
            seen.append((life.files, round(life.calls, 1), round(life.changes, 1)))
            if all(found <= bound for found, bound in zip(seen[-1], MOST, strict=True)):
                return
    pytest.fail(f"files, calls, changes of file: {seen}, and at most {MOST} is right")
