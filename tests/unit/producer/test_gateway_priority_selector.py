"""The event loop selects light tokens' sockets always, and at those of the background in its time."""

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from millpond.producer.gateway.priority_selector import (
    LIGHT_REQUEST_SECONDS,
    LIGHT_SECONDS,
    LONGEST_REST_SECONDS,
    REST_FACTORS,
    SOCKETS_A_TURN,
    BackgroundThrottle,
    PrioritySelector,
    SocketPriority,
)
from tests.harness.manual_clock import ManualClock


class Sockets:
    """A selector, and sockets that can be read at once."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock = ManualClock(100.0)
        self.background = BackgroundThrottle(self.clock)
        self.selector = PrioritySelector(self.background)
        stack.callback(self.selector.close)
        self._stack = stack

    def readable(self) -> int:
        """Register a socket that can be read; return its number."""
        ours, theirs = (self._stack.enter_context(each) for each in socket.socketpair())
        theirs.sendall(b"x")
        self.selector.register(ours, selectors.EVENT_READ)
        return ours.fileno()

    def found(self) -> set[int]:
        """Return the sockets that are found ready."""
        return {key.fd for key, mask in self.selector.select(0) if mask == selectors.EVENT_READ}

    def work(self, seconds: float) -> None:
        """Advance the clock by the seconds that the loop works after a selection of its sockets."""
        self.clock.now += seconds

    def rest(self, seconds: float) -> None:
        """Advance the clock by the seconds that the loop waits for its sockets."""
        self.background.enter_select()
        self.clock.now += seconds
        self.background.leave_select(read_background=False)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def test_the_background_rests_beside_a_light_request(sockets: Sockets) -> None:
    """After its work the background is not selected for a rest; what is forward always is."""
    forward = sockets.readable()
    sockets.selector.start()
    behind = sockets.readable()
    sockets.background.begin_light_request()
    assert sockets.found() == {forward, behind}
    sockets.work(0.001)
    assert sockets.found() == {forward}
    sockets.rest(1.1 * REST_FACTORS[2] * 0.001)
    assert sockets.found() == {forward, behind}
    sockets.work(10 * LONGEST_REST_SECONDS)
    assert sockets.found() == {forward, behind}


def test_no_rest_without_a_light_token(sockets: Sockets) -> None:
    """The background rests less where a light token only is there, and not at all where it is gone."""
    sockets.selector.start()
    behind = sockets.readable()
    assert sockets.found() == {behind}
    sockets.background.end_light_request(sockets.background.begin_light_request())
    sockets.work(0.001)
    assert sockets.found() == set()
    sockets.rest(1.1 * REST_FACTORS[1] * 0.001)
    assert sockets.found() == {behind}
    sockets.work(LIGHT_SECONDS)
    assert sockets.found() == {behind}
    sockets.work(0.001)
    assert sockets.found() == {behind}


def test_a_long_request_holds_up_the_background_for_its_begin_alone(sockets: Sockets) -> None:
    """A stream of a light token is a request that is under way; it is held for no longer than others."""
    sockets.background.begin_light_request()
    assert sockets.background.has_light_request
    sockets.work(LIGHT_REQUEST_SECONDS)
    assert not sockets.background.has_light_request


def test_the_background_is_read_in_turns_of_a_few(sockets: Sockets) -> None:
    """Of many sockets in the background each turn finds a few, and all are found in the end."""
    sockets.selector.start()
    many = {sockets.readable() for _ in range(3 * SOCKETS_A_TURN[0][0])}
    turns = [sockets.found() for _ in range(3)]
    assert [len(each) for each in turns] == [SOCKETS_A_TURN[0][0]] * 3
    assert set.union(*turns) == many
    sockets.background.begin_light_request()
    assert len(sockets.found()) == SOCKETS_A_TURN[2][0]


def test_new_sockets_wait_for_none_that_are_behind(sockets: Sockets) -> None:
    """Beside many sockets that are behind, a new one is found in the next turn."""
    sockets.selector.start()
    for _ in range(3 * SOCKETS_A_TURN[0][0]):
        sockets.selector.set_priority(sockets.readable(), SocketPriority.HEAVY)
    sockets.found()
    new = sockets.readable()
    assert new in sockets.found()


def test_a_socket_keeps_its_place_while_it_is_not_registered(sockets: Sockets) -> None:
    """What was brought forward stays there when its reading is paused, until it is put back."""
    sockets.selector.start()
    moved, other = sockets.readable(), sockets.readable()
    sockets.selector.set_priority(moved, SocketPriority.FOREGROUND)
    sockets.selector.unregister(moved)
    sockets.selector.register(moved, selectors.EVENT_READ)
    light = sockets.background.begin_light_request()
    sockets.found()
    sockets.work(0.001)
    assert sockets.found() == {moved}
    sockets.selector.set_priority(moved, SocketPriority.HEAVY)
    assert sockets.found() == set()
    sockets.background.end_light_request(light)
    sockets.work(LIGHT_SECONDS)
    assert sockets.found() == {moved, other}
