"""Deliveries that slots finish are settled by the event loop, and threads do not run far ahead of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from millpond.broker.consume.in_flight import MAX_UNSETTLED, InFlightMessages
from millpond.broker.consume.next_request import take_next_request
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.worker.dispatch import thread_pool
from millpond.worker.dispatch.thread_pool import ThreadSlots
from tests.conftest import Eventually
from tests.harness.manual_consumer import delivery_of


class Loop:
    """The event loop's stand-in: keeps the callbacks that it is given."""

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
    """Finish a delivery that is in flight no more."""
    in_flight.finish(delivery_of(f"{n}/0"), SUCCEEDED)


def test_asks_once_for_any_number(loop: Loop, in_flight: InFlightMessages) -> None:
    """And again for deliveries that end after the loop has settled."""
    for n in range(5):
        finish(in_flight, n)
    assert (len(loop.asked), in_flight.unsettled_count) == (1, 5)
    loop.turn()
    assert take_next_request(in_flight, set(), now=0.0) is None, "nobody has them in flight any more"
    assert in_flight.unsettled_count == 0
    finish(in_flight, 5)
    assert len(loop.asked) == 1


def test_asks_again_once_the_loop_has_begun_anew(loop: Loop, in_flight: InFlightMessages) -> None:
    """A callback in the loop may be lost with its connection; tasks from before it end after it."""
    finish(in_flight, 1)
    loop.asked.clear()
    in_flight.settle_by(loop.call_soon, in_flight.settle_finished)
    finish(in_flight, 2)
    assert len(loop.asked) == 1


def test_a_thread_far_ahead_waits_until_what_is_finished_was_sent(
    slots: ThreadSlots,
    loop: Loop,
    in_flight: InFlightMessages,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """That the loop settled it is not enough: a kill before the next turn, and it runs again."""
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


def test_a_thread_far_ahead_does_not_keep_a_process_that_ends(
    slots: ThreadSlots, in_flight: InFlightMessages, eventually: Eventually
) -> None:
    """Nothing is sent by the loop any more; the rest is settled on the way out."""
    for n in range(MAX_UNSETTLED):
        finish(in_flight, n)
    thread = threading.Thread(target=slots.wait_for_backlog)
    thread.start()
    assert thread.is_alive()
    in_flight.draining = True
    eventually(lambda: not thread.is_alive())


def test_a_thread_that_is_not_ahead_does_not_wait(
    slots: ThreadSlots, in_flight: InFlightMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would."""
    monkeypatch.setattr(thread_pool, "CHECK_SECONDS", 3600)
    finish(in_flight, 1)
    slots.wait_for_backlog()


def test_nothing_waits_where_there_is_no_loop(in_flight: InFlightMessages, slots: ThreadSlots) -> None:
    """With greenlets the next call sends the finished ones, however many."""
    in_flight.settle_by(None, in_flight.settle_finished)
    for n in range(MAX_UNSETTLED):
        finish(in_flight, n)
    slots.wait_for_backlog()
