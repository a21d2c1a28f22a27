"""How many messages a process fetches beyond its slots, by how soon its tasks end."""

import pytest

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.prefetch import AGAIN_SECONDS, WAITED_SECONDS, Prefetch
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import RELEASE, SUCCEEDED, Outcome
from tests.harness.manual_consumer import delivery_of


class OneSlot:
    """A worker of one slot in which three tasks wait, or none that can be taken."""

    def __init__(self, waiting: int = 3) -> None:
        self.waiting = waiting

    def usable_slots(self, granted: int) -> int:
        """Return the one slot."""
        return min(granted, 1)

    def release_waiting(self) -> int:
        """Give back what waits."""
        return self.waiting


@pytest.fixture
def ahead() -> Prefetch:
    """Return the prefetch of a worker that has just started."""
    made = Prefetch()
    made.waiting_tasks = OneSlot()
    made.measure(100.0, is_full=True)
    return made


def test_a_worker_that_starts_has_all_of_the_setting(ahead: Prefetch) -> None:
    """Nothing is known of its tasks; they may be short."""
    assert min(16, ahead.depth) == 16


@pytest.mark.parametrize(("ended", "depth"), [(0, 0), (1, 0), (5, 2), (10, 4), (1000, 16)])
def test_it_is_the_tasks_that_end_in_a_moment(ahead: Prefetch, ended: int, depth: int) -> None:
    """By the rate at which they end, at most the setting."""
    ahead.ended = ended
    ahead.measure(100.125, is_full=True)
    assert min(16, ahead.depth) == depth


def test_many_ends_are_measured_at_once(ahead: Prefetch) -> None:
    """A process whose prefetch went back has it again after a few short tasks."""
    ahead.depth, ahead.ended = 0, 16
    ahead.measure(100.01, is_full=True)
    assert min(16, ahead.depth) == 16


def test_an_idle_process_keeps_it_and_a_stalled_one_measures_nothing(ahead: Prefetch) -> None:
    """A process that is not full could have ended more; one that stood for long has not measured."""
    ahead.ended = 10
    ahead.measure(100.125, is_full=True)
    ahead.measure(100.25, is_full=False)
    ahead.measure(102.0, is_full=True)
    assert min(16, ahead.depth) == 4


def test_a_burst_after_a_pause_has_the_depth_of_the_one_before(ahead: Prefetch) -> None:
    """The time without work says nothing of how soon tasks end."""
    ahead.measure(100.05, is_full=False)
    ahead.measure(100.25, is_full=True)
    assert min(16, ahead.depth) == 16


@pytest.mark.parametrize(("outcome", "ended"), [(SUCCEEDED, 1), (RELEASE, 0)])
@pytest.mark.parametrize("by_thread", [True, False])
def test_what_was_given_back_is_no_end(outcome: Outcome, ended: int, by_thread: bool) -> None:
    """A message that went back has not been a short task."""
    in_flight, delivery = InFlightMessages(), delivery_of("1/0", "task")
    in_flight.lease_on(QueueKeys("one")).add_delivery(delivery)
    if by_thread:
        in_flight.finish(delivery, outcome)
        in_flight.settle_finished()
    else:
        in_flight.queue_outcome(delivery, outcome)
    assert in_flight.learned_prefetch.ended == ended


def test_what_waits_goes_back_after_a_moment(ahead: Prefetch) -> None:
    """Counted from the fetch of the first that waits, whatever its queue; those that run are not meant."""
    running, waits = delivery_of("1/0", "runs"), delivery_of("2/0", "waits")
    late = waits.fetched_at + WAITED_SECONDS
    ahead.release_overdue([[running], []], 1, late)
    ahead.release_overdue([[waits], [running]], 1, late - 0.03)
    assert (ahead.released, min(16, ahead.depth), ahead.check_at) == (0, 16, late)
    ahead.release_overdue([[waits], [running]], 1, late)
    ahead.release_overdue([[waits], [running]], 1, late + AGAIN_SECONDS)
    assert (ahead.released, min(16, ahead.depth), round(ahead.check_at - late, 6)) == (
        3,
        0,
        2 * AGAIN_SECONDS,
    )


def test_a_process_that_stood_still_gives_nothing_back(ahead: Prefetch) -> None:
    """At its second check the messages that waited have started; what waits now is fresh."""
    old, older, fresh = (delivery_of(f"{n}/0", "task") for n in range(3))
    now = fresh.fetched_at + 1
    fresh.fetched_at = now
    ahead.release_overdue([[older, old]], 1, now)
    ahead.release_overdue([[old, fresh]], 1, now + AGAIN_SECONDS)
    assert (ahead.released, min(16, ahead.depth)) == (0, 16)


def test_a_pool_of_which_nothing_can_be_taken_is_asked_less_and_less(ahead: Prefetch) -> None:
    """Up to once a second, and its prefetch stays."""
    ahead.waiting_tasks = OneSlot(waiting=0)
    both, pauses = [delivery_of("1/0", "runs"), delivery_of("2/0", "waits")], []
    now = both[1].fetched_at + WAITED_SECONDS
    for _ in range(9):
        ahead.release_overdue([both], 1, now)
        pauses.append(round(ahead.check_at - now, 2))
        now = ahead.check_at
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]
    assert min(16, ahead.depth) == 16


def test_a_busy_process_does_not_fetch_again_what_it_gave_back(ahead: Prefetch) -> None:
    """While its slots are busy it has no room; a slot that comes free fetches for itself alone."""
    in_flight = InFlightMessages(prefetch=16)
    in_flight.learned_prefetch = ahead
    lease = in_flight.lease_on(QueueKeys("one"))
    running, waits = delivery_of("1/0", "runs"), delivery_of("2/0", "waits")
    lease.add_delivery(running)
    lease.add_delivery(waits)
    assert in_flight.room == 15
    for late in (0.0, AGAIN_SECONDS):
        in_flight.release_overdue(waits.fetched_at + WAITED_SECONDS + late)
    in_flight.queue_outcome(waits, RELEASE)
    assert in_flight.room == 0
    in_flight.queue_outcome(running, SUCCEEDED)
    assert in_flight.room == 1


def test_without_a_line_it_is_as_set() -> None:
    """A consumer that is no worker has what it asked for."""
    in_flight = InFlightMessages(prefetch=7)
    in_flight.slots = 100
    in_flight.learned_prefetch.measure(100.0, is_full=True)
    in_flight.learned_prefetch.measure(100.25, is_full=True)
    assert in_flight.capacity == (100, 7)
