"""The event loop settles finished deliveries, and threads pause while many outcomes are not sent."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from millpond.broker.consume.fetch_call import take_next_request
from millpond.broker.consume.in_flight import MAX_UNSETTLED, InFlightMessages
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.worker.dispatch import thread_pool
from millpond.worker.dispatch.thread_pool import ThreadSlots
from tests.conftest import Eventually
from tests.harness.manual_consumer import delivery_of


class Loop:
    """A stand-in for the event loop, which keeps callbacks until `turn`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.asked.append(callback)

    def turn(self) -> None:
        asked, self.asked = self.asked, []
        for callback in asked:
            callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def in_flight(loop: Loop) -> InFlightMessages:
    made = InFlightMessages()
    made.settle_by(loop.call_soon, made.settle_finished)
    return made


@pytest.fixture
def slots(in_flight: InFlightMessages) -> ThreadSlots:
    return ThreadSlots(ThreadPoolExecutor(1), 1, in_flight)


def finish(in_flight: InFlightMessages, n: int) -> None:
    """Finish a delivery that is not in flight any more."""
    in_flight.finish(delivery_of(f"{n}/0"), SUCCEEDED)


def test_settling_is_planned_once_for_any_number_of_deliveries(
    loop: Loop, in_flight: InFlightMessages
) -> None:
    """It is planned again for deliveries that finish after the loop has settled."""
    for n in range(5):
        finish(in_flight, n)
    assert (len(loop.asked), in_flight.unsettled_count) == (1, 5)
    loop.turn()
    assert take_next_request(in_flight, set(), now=0.0) is None, "nobody has them in flight any more"
    assert in_flight.unsettled_count == 0
    finish(in_flight, 5)
    assert len(loop.asked) == 1


def test_settling_is_planned_again_for_a_new_connection(loop: Loop, in_flight: InFlightMessages) -> None:
    """A callback may be lost with the old connection, and tasks of before finish later."""
    finish(in_flight, 1)
    loop.asked.clear()
    in_flight.settle_by(loop.call_soon, in_flight.settle_finished)
    finish(in_flight, 2)
    assert len(loop.asked) == 1


def test_a_thread_waits_until_the_outcomes_were_sent(
    slots: ThreadSlots,
    loop: Loop,
    in_flight: InFlightMessages,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """Outcomes that are only queued do not suffice: after a kill their tasks would run again."""
    monkeypatch.setattr(thread_pool, "CHECK_SECONDS", 60)
    lease = in_flight.lease_on(QueueKeys("queue"))
    for n in range(MAX_UNSETTLED):
        delivery = delivery_of(str(n), f"task {n}")
        lease.add_delivery(delivery)
        in_flight.finish(delivery, SUCCEEDED)
    thread = threading.Thread(target=slots.wait_for_backlog)
    thread.start()
    loop.turn()
    in_flight.settle_finished()
    assert (len(lease.outcomes), in_flight.unsettled_count) == (MAX_UNSETTLED, MAX_UNSETTLED)
    thread.join(0.2)
    assert thread.is_alive()
    assert take_next_request(in_flight, set(), now=0.0) is not None
    eventually(lambda: not thread.is_alive())


def test_a_waiting_thread_does_not_hold_up_a_process_that_drains(
    slots: ThreadSlots, in_flight: InFlightMessages, eventually: Eventually
) -> None:
    """The loop sends nothing any more, and the rest is settled at the end of the process."""
    for n in range(MAX_UNSETTLED):
        finish(in_flight, n)
    thread = threading.Thread(target=slots.wait_for_backlog)
    thread.start()
    assert thread.is_alive()
    in_flight.draining = True
    eventually(lambda: not thread.is_alive())


def test_a_thread_does_not_wait_while_few_outcomes_are_unsent(
    slots: ThreadSlots, in_flight: InFlightMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it did, this test would take an hour."""
    monkeypatch.setattr(thread_pool, "CHECK_SECONDS", 3600)
    finish(in_flight, 1)
    slots.wait_for_backlog()


def test_no_thread_waits_without_an_event_loop(in_flight: InFlightMessages, slots: ThreadSlots) -> None:
    """With greenlets the next call sends all outcomes, however many there are."""
    in_flight.settle_by(None, in_flight.settle_finished)
    for n in range(MAX_UNSETTLED):
        finish(in_flight, n)
    slots.wait_for_backlog()
