"""What slots finish is settled by the event loop, and threads do not run far ahead of it."""

import threading
from typing import Any

import pytest

from millpond.broker.consume.in_flight import Holder
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.worker import completer
from millpond.worker.completer import AHEAD, Settler
from tests.conftest import Eventually
from tests.harness.by_hand import delivery_of


class Loop:
    """Stand for the event loop: keep what it is asked to call."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.asked.append(callback)

    def turn(self) -> None:
        asked, self.asked = self.asked, []
        for callback in asked:
            callback()


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def settler(holder: Holder, loop: Loop) -> Settler:
    return Settler(holder, holder.settle_finished, loop, holder.settle_finished)


def finish(settler: Settler, n: int) -> None:
    """Finish a delivery that nobody has in flight any more."""
    settler.finish(delivery_of(f"{n}/0"), SUCCEEDED)


def test_asks_once_for_any_number(settler: Settler, loop: Loop, holder: Holder) -> None:
    """And again for what ends after the loop has settled."""
    for n in range(5):
        finish(settler, n)
    assert (len(loop.asked), holder.unsettled_count) == (1, 5)
    loop.turn()
    assert holder.unsettled_count == 0
    finish(settler, 5)
    assert len(loop.asked) == 1


def test_asks_again_once_the_loop_has_begun_anew(settler: Settler, loop: Loop, holder: Holder) -> None:
    """What the loop was asked may be lost with its connection; tasks from before it end after it."""
    finish(settler, 1)
    loop.asked.clear()
    settler.begin_anew()
    finish(settler, 2)
    loop.turn()
    assert holder.unsettled_count == 0


def test_a_thread_far_ahead_waits_until_what_is_finished_was_sent(
    settler: Settler, loop: Loop, holder: Holder, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """That the loop settled it is not enough: a kill before the next turn, and it runs again."""
    monkeypatch.setattr(completer, "LOOK_SECONDS", 60)
    hold = holder.hold(QueueKeys("queue"))
    for n in range(AHEAD):
        delivery = delivery_of(str(n), f"task {n}")
        hold.take(delivery)
        settler.finish(delivery, SUCCEEDED)
    thread = threading.Thread(target=settler.let_catch_up)
    thread.start()
    loop.turn()
    assert (len(hold.pending), holder.unsettled_count) == (AHEAD, AHEAD)
    thread.join(0.2)
    assert thread.is_alive()
    assert holder.next_turn(set(), now=0.0) is not None
    eventually(lambda: not thread.is_alive())


def test_a_thread_far_ahead_does_not_keep_a_process_that_ends(
    settler: Settler, holder: Holder, eventually: Eventually
) -> None:
    """Nothing is sent by turns any more; what is left is settled on the way out."""
    for n in range(AHEAD):
        finish(settler, n)
    thread = threading.Thread(target=settler.let_catch_up)
    thread.start()
    assert thread.is_alive()
    holder.draining = True
    eventually(lambda: not thread.is_alive())


def test_a_thread_that_is_not_ahead_does_not_wait(settler: Settler, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it would."""
    monkeypatch.setattr(completer, "LOOK_SECONDS", 3600)
    finish(settler, 1)
    settler.let_catch_up()


def test_nothing_waits_where_there_is_no_loop(holder: Holder) -> None:
    """With greenlets each delivery is settled where it ends."""
    settler = Settler(holder, holder.settle_finished, None, holder.settle_finished)
    finish(settler, 1)
    assert holder.unsettled_count == 0
    settler.let_catch_up()
