"""A process that consumes several queues: a token belongs to its queue."""

import sys
from concurrent.futures import ThreadPoolExecutor

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED, DeadLetter
from tests.harness.manual_consumer import delivery_of


def held_twice() -> tuple[InFlightMessages, Delivery, Delivery]:
    """Return a registry with two messages of two queues under the same token, and their deliveries."""
    in_flight, deliveries = InFlightMessages(), []
    for queue in ("one", "two"):
        delivery = delivery_of("1/0", f"task of {queue}")
        delivery.queue = queue
        in_flight.lease_on(QueueKeys(queue)).add_delivery(delivery)
        deliveries.append(delivery)
    return in_flight, deliveries[0], deliveries[1]


def test_an_outcome_is_for_the_queue_of_its_message() -> None:
    """Settling a message of one queue leaves the message of another with the same token in flight."""
    in_flight, one, two = held_twice()
    assert in_flight.find_delivery(two.tag) is two
    assert in_flight.queue_outcome(two, SUCCEEDED)
    assert [each.message.id for each, _ in in_flight.leases["two"].take_outcomes(10)] == ["task of two"]
    assert list(in_flight.leases["one"].in_flight.values()) == [one]
    assert not in_flight.leases["one"].outcomes


def test_an_outcome_is_of_one_delivery() -> None:
    """A delivery that finished in one queue leaves another's as it is, and is settled once."""
    in_flight, one, two = held_twice()
    in_flight.finished.append((two, DeadLetter("FinalError", "it failed")))
    in_flight.finished.append((one, SUCCEEDED))
    in_flight.settle_finished()
    assert [outcome for _, outcome in in_flight.leases["one"].take_outcomes(10)] == [SUCCEEDED]
    assert not in_flight.queue_outcome(one, SUCCEEDED)


def test_a_lost_lease_is_that_of_one_queue() -> None:
    """A message is lost with the lease of its own queue only."""
    in_flight, one, two = held_twice()
    in_flight.replace_lost_lease(in_flight.leases["two"])
    assert not in_flight.may_start(two)
    assert in_flight.may_start(one)


def test_threads_take_each_outcome_once() -> None:
    """The event loop and a thread of a pool that drains take outcomes at the same time."""
    in_flight, one, _two = held_twice()
    lease = in_flight.leases["one"]
    lease.outcomes.extend((one, SUCCEEDED) for _ in range(20_000))

    def take() -> int:
        count = 0
        while found := lease.take_outcomes(3):
            count += len(found)
        return count

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            taken = [each.result() for each in [threads.submit(take) for _ in range(4)]]
    finally:
        sys.setswitchinterval(before)
    assert sum(taken) == 20_000
