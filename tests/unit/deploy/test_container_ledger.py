"""The ledger of the tests with containers finds lost, repeated and simultaneous runs."""

from tests.scenarios.containers import ledger
from tests.scenarios.containers.ledger import Fault, Run

#: One task that ran on time, one that ran twice, one that began and never ended.
FOUND = {
    "once": [Run("once", "a", 10.0, 11.0)],
    "twice": [Run("twice", "a", 10.5, 11.5), Run("twice", "b", 20.0, 21.0)],
    "half": [Run("half", "b", 10.8)],
}


def test_what_never_ended_is_lost() -> None:
    """A task without a run that ended is lost, whether it began or not."""
    assert ledger.lost(["once", "twice", "half", "never"], FOUND) == ["half", "never"]


def test_a_repeat_needs_a_fault_of_its_own_host_and_time() -> None:
    """A fault explains a repeat when it hit the host of either run while that held the message."""
    for fault in (Fault("kill", 11, 11, ["a"]), Fault("broker", 12, 13), Fault("cut", 5, 30, ["b"])):
        assert ledger.repeats(FOUND, [fault]) == (1, [])
    for fault in (Fault("kill", 11, 11, ["c"]), Fault("broker", 14, 15), Fault("kill", 30, 31, ["a", "b"])):
        count, unexplained = ledger.repeats(FOUND, [fault])
        assert (count, len(unexplained)) == (1, 1)


def test_what_ran_at_once_and_started_within_a_time_is_counted() -> None:
    """Three were under way at 10.9; three started within a second, two within half of one."""
    assert ledger.most_at_once(FOUND) == 3
    assert ledger.most_started(FOUND, within_seconds=1.0) == 3
    assert ledger.most_started(FOUND, within_seconds=0.5) == 2
