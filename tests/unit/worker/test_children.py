"""The watch over prefork children: a dying child is checked until it is dead."""

from collections.abc import Callable
from typing import Any

import pytest

from millpond.broker.celery.child_watch import LATEST_SECONDS, WatchedPool


class Hub:
    """An event loop whose timers a test fires."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._due: list[Callable[[], None]] = []

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Remember a call."""
        self.waits.append(seconds)
        self._due.append(lambda: call(*args))

    def fire(self) -> bool:
        """Make the call that waits. Return False if there is none."""
        if self._due:
            self._due.pop()()
            return True
        return False


class Child:
    """A child whose pipes are closed."""

    _sentinel_poll = None


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> WatchedPool:
    """A pool of one child, which is reaped at the tenth check."""
    pool = WatchedPool.__new__(WatchedPool)
    pool._pool, checks = [Child()], []

    def check() -> None:
        checks.append(1)
        if len(checks) == 10:
            pool._pool.clear()

    monkeypatch.setattr(pool, "maintain_pool", check)
    return pool


def test_a_dying_child_is_checked_until_it_is_dead(children: WatchedPool) -> None:
    """The first check comes at once, each further one after a longer time, and none after its end."""
    hub = Hub()
    children._event_process_exit(hub, children._pool[0])
    while hub.fire():
        pass
    assert hub.waits == sorted(hub.waits)
    assert (hub.waits[0], hub.waits[-1], len(hub.waits)) == (0.01, LATEST_SECONDS, 9)
    assert not children._pool


def test_a_child_whose_pipes_are_closed_is_not_listened_to(children: WatchedPool) -> None:
    """After a reconnect the pool listens to all children, except one that is dying."""
    children._track_child_process(children._pool[0], Hub())  # Celery's raises ValueError
