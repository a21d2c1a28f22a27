"""Explain surplus runs by faults, and by retries that were sent twice, on made-up ledgers."""

import pytest

from tests.scenarios.chaos.duplicates import SENT_AGAIN, Duplicates, match
from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.runs import Run, Task

KILLED, ANOTHER, THIRD = 1, 2, 3

#: A worker that is killed after its run has sent the retry, and before the message of the run is settled.
KILL = Fault("kill worker", 10.1, 10.2, [KILLED])


def run(attempt: int, pid: int, at: float, how: str = "retry") -> Run:
    """Make a run of a twentieth of a second."""
    return Run(attempt, pid, pid, at, at + 0.05, how)


#: The first attempt runs twice because of the kill, and the others because its retry was sent twice.
TWICE = [
    run(0, KILLED, 10.0),
    run(1, ANOTHER, 11.0),
    run(2, ANOTHER, 12.0, "ok"),
    run(0, THIRD, 13.2),
    run(1, ANOTHER, 14.2),
    run(2, ANOTHER, 15.2, "ok"),
]


def found(*runs: Run, retries_are_sent: bool = True) -> Duplicates:
    """Match the runs of one task with the kill."""
    return match([Task("t", outcome="taken", runs=list(runs))], [KILL], retries_are_sent=retries_are_sent)


def test_a_retry_that_was_sent_twice_explains_all_later_attempts() -> None:
    """After one kill between a retry and its settling, each later attempt runs twice in unhurt processes."""
    duplicates = found(*TWICE)
    assert duplicates.unexplained == []
    assert duplicates.explained == {"kill worker": 2, SENT_AGAIN: 1}


def test_a_retry_that_replaces_its_message_explains_no_later_attempt() -> None:
    """Where a retry replaces its message, as after `RetryLater`, the same ledger shows a fault."""
    duplicates = found(*TWICE, retries_are_sent=False)
    assert [line.split(":")[0] for line in duplicates.unexplained] == ["t/1", "t/2"]


@pytest.mark.parametrize(
    "runs",
    [
        [*TWICE, run(2, ANOTHER, 16.2, "ok")],
        [run(1, ANOTHER, 11.0), run(2, ANOTHER, 12.0, "ok"), run(2, ANOTHER, 15.2, "ok")],
        [*TWICE[:4], run(1, ANOTHER, 14.2, "ok"), run(2, ANOTHER, 15.2, "ok")],
        [*TWICE[:3], run(2, ANOTHER, 13.1, "ok"), *TWICE[3:5]],
    ],
    ids=["once more than it was sent", "sent once", "one of the two ended well", "before it was sent again"],
)
def test_each_surplus_retry_explains_one_run(runs: list[Run]) -> None:
    """A run without a retry of its own stays unexplained."""
    assert [line.split(":")[0] for line in found(*runs).unexplained] == ["t/2"]
