"""Account losses to the moments that were forgotten, on ledgers made up for it."""

from typing import Any

import pytest

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.runs import Run, Task
from tests.scenarios.chaos.verdict import judge

COPY = Fault("restore copy", 10.0, 15.0, forgets=(10.0, 12.0))


def sent(sent_at: float, noted_at: float, **more: Any) -> Task:
    """Make a task that was taken."""
    return Task("t", outcome="taken", sent_at=sent_at, noted_at=noted_at, **more)


@pytest.mark.parametrize(
    ("task", "lost", "forgotten"),
    [
        (sent(10.5, 10.6), 0, 1),
        (sent(9.9, 10.1), 0, 1),
        (sent(8.0, 8.1), 1, 0),
        (sent(14.0, 14.1), 1, 0),
        (sent(10.5, 10.6, runs=[Run(0, 1, 1, 11.0, 11.1, "ok")]), 0, 0),
    ],
    ids=["within", "across its start", "before", "after the server died", "it ran"],
)
def test_only_the_forgotten_moment_may_take_a_task(task: Task, lost: int, forgotten: int) -> None:
    """A task that is gone was sent in the moment, or it is lost; one that ran is neither."""
    verdict = judge({"t": task}, [COPY], set())
    assert (verdict.counts["lost"], verdict.counts["forgotten"]) == (lost, forgotten)
    assert bool(verdict.wrong) == bool(lost)
    assert verdict.windows == [("restore copy", 2.0, forgotten)]
