"""What slots finish is settled by the event loop, and threads do not run far ahead of it."""

import threading
from typing import Any

import pytest

from broker.holding import Holder
from tests.conftest import Eventually
from worker import settling
from worker.settling import AHEAD, Settler


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
    return Settler(holder, holder.settle_finished, loop)


def test_asks_once_for_any_number(settler: Settler, loop: Loop, holder: Holder) -> None:
    """And again for what ends after the loop has settled."""
    for n in range(5):
        settler.finish(f"{n} queue")
    assert (len(loop.asked), holder.finished_count) == (1, 5)
    loop.turn()
    assert holder.finished_count == 0
    settler.finish("5 queue")
    assert len(loop.asked) == 1


def test_a_thread_far_ahead_waits_for_the_loop(
    settler: Settler, loop: Loop, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Until what was finished is settled."""
    monkeypatch.setattr(settling, "CATCH_UP_SECONDS", 60)
    for n in range(AHEAD):
        settler.finish(f"{n} queue")
    thread = threading.Thread(target=settler.let_catch_up)
    thread.start()
    assert thread.is_alive()
    loop.turn()
    eventually(lambda: not thread.is_alive())


def test_a_thread_that_is_not_ahead_does_not_wait(settler: Settler, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it would."""
    monkeypatch.setattr(settling, "CATCH_UP_SECONDS", 3600)
    settler.finish("1 queue")
    settler.let_catch_up()


def test_nothing_waits_where_there_is_no_loop(holder: Holder) -> None:
    """With greenlets each delivery is settled where it ends."""
    settler = Settler(holder, holder.settle_finished, None)
    settler.finish("1 queue")
    assert holder.finished_count == 0
    settler.let_catch_up()
