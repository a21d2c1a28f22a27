"""The order in which the event loop reads its sockets: those of light tokens always, the others a few at a
time. While light tokens are active, the others have at most a quarter of the time, and a fifth while a
request of a light token is under way.

A loop that never rests also keeps its own threads from the interpreter: a thread that waits for it is woken
by every system call of the loop, comes too late, and waits anew. In the rests a light request's calls run.
"""

import select as system
import selectors
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum
from itertools import count
from time import monotonic
from typing import Any

#: New sockets, and sockets that are behind, that are read in one turn of the loop: if no light token is
#: active, if one sent a request in the last moment, and if a request of one is under way.
AT_ONCE = ((8, 8), (3, 1), (3, 1))
#: The rest of the background after its work, as a part of that work, in these three states.
REST = (0.0, 3.0, 4.0)
#: The longest rest, however much there is to do for light tokens.
LONGEST_REST_SECONDS = 0.03
#: A light token is active for this time after its request.
THERE_SECONDS = 1.0
#: A light request holds up the background for this time: later it is a stream, or waits for something else.
HOLDING_SECONDS = 0.5


class Background:
    """The times at which the background may go on: always, or after a rest if light tokens are active."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        #: The light requests under way and when each began, the first first.
        self._light: dict[int, float] = {}
        self._requests = count()
        self._asked_at = -THERE_SECONDS
        self._went_on_at, self._worked = clock(), 0.0
        self._left_select_at = clock()

    @property
    def state(self) -> int:
        """The place in `AT_ONCE` and `REST`: 0 no light token, 1 one is there, 2 its request is under way."""
        return self._state_at(self._clock())

    def _state_at(self, now: float) -> int:
        """Return the state at a time, and forget light requests that no longer hold up the background."""
        if now >= self._asked_at + THERE_SECONDS:
            return 0
        while self._light:
            first, began = next(iter(self._light.items()))
            if now < began + HOLDING_SECONDS:
                return 2
            del self._light[first]
        return 1

    @property
    def is_held(self) -> bool:
        """True while a light request is under way."""
        return self.state == len(REST) - 1

    def light_began(self) -> int:
        """Count a light request that begins, and return its number."""
        number = next(self._requests)
        self._light[number] = self._asked_at = self._clock()
        return number

    def light_ended(self, number: int) -> None:
        """Count a light request that ended, or is light no more."""
        self._light.pop(number, None)

    def rest_seconds(self) -> float:
        """Return the time until the background may go on, 0 for now."""
        now = self._clock()
        if now >= self._went_on_at + LONGEST_REST_SECONDS:
            return 0.0
        rest = self._worked * (1 + REST[self._state_at(now)])
        return max(0.0, self._went_on_at + min(rest, LONGEST_REST_SECONDS) - now)

    def enter_select(self) -> None:
        """Count the work of the loop since it last looked at its sockets."""
        self._worked += self._clock() - self._left_select_at

    def leave_select(self, *, went_on: bool) -> None:
        """Begin to count anew if the background went on."""
        self._left_select_at = self._clock()
        if went_on:
            self._went_on_at, self._worked = self._left_select_at, 0.0


class SocketPlace(IntEnum):
    """The place of a socket: those that are `FORWARD` are looked at always, the others make the background.

    A `NEW` socket waits for no one that is `BEHIND`: each of the two has its turn.
    """

    FORWARD, NEW, BEHIND = range(3)


class PrioritySelector(selectors.BaseSelector):
    """A selector with a background. A socket that is registered after `start` is new."""

    def __init__(self, background: Background) -> None:
        self._pace = background
        self._epolls = [system.epoll() for _ in SocketPlace]
        self._front, *self._rear = self._epolls
        self._back = system.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        #: The sockets that are not new. A socket keeps its place while it is not registered.
        self._places: dict[int, SocketPlace] = {}
        self._is_started = self._looks_back = False
        self._back_fd = self._back.fileno()
        self._front.register(self._back_fd, 0)
        for each in self._rear:
            self._back.register(each.fileno(), system.EPOLLIN)

    def start(self) -> None:
        """Count every further socket as new."""
        self._is_started = True

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a socket. Raises `KeyError` if it is registered."""
        fd = _descriptor_of(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        if not self._is_started:
            self._places[fd] = SocketPlace.FORWARD
        self._epoll_of(fd).register(fd, _epoll_mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a socket."""
        key = self._keys.pop(_descriptor_of(fileobj))
        with suppress(OSError):  # it is closed
            self._epoll_of(key.fd).unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change the events and the data of a socket."""
        old = self._keys[_descriptor_of(fileobj)]
        if events != old.events:
            self._epoll_of(old.fd).modify(old.fd, _epoll_mask(events))
        key = self._keys[old.fd] = old._replace(events=events, data=data)
        return key

    def put(self, fd: int, place: SocketPlace) -> None:
        """Put a socket into a place. Before it is closed, it is counted as new."""
        if self._places.get(fd, SocketPlace.NEW) is place:
            return
        key = self._keys.get(fd)
        if key is not None:
            self._epoll_of(fd).unregister(fd)
        if place is SocketPlace.NEW:
            del self._places[fd]
        else:
            self._places[fd] = place
        if key is not None:
            self._epoll_of(fd).register(fd, _epoll_mask(key.events))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the sockets that are ready, those of the background last."""
        self._pace.enter_select()
        rest = self._pace.rest_seconds()
        self._look_back(rest <= 0)
        if rest > 0:
            timeout = rest if timeout is None else min(timeout, rest)
        events = self._front.poll(timeout, len(self._keys) + 1)
        ready, keys, back, went_on = [], self._keys, self._back_fd, False
        for fd, mask in events:
            key = keys.get(fd)
            if key is not None:
                ready.append((key, _asyncio_events(mask) & key.events))
            elif fd == back:
                went_on = True
        if went_on:
            for each, most in zip(self._rear, AT_ONCE[self._pace.state], strict=True):
                ready += [
                    (keys[fd], _asyncio_events(mask) & keys[fd].events) for fd, mask in each.poll(0, most)
                ]
        self._pace.leave_select(went_on=went_on)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the sockets by their numbers."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return the key that is registered for a socket."""
        return self._keys[_descriptor_of(fileobj)]

    def close(self) -> None:
        """Close the selector."""
        for each in (self._back, *self._epolls):
            each.close()
        self._keys.clear()

    def _epoll_of(self, fd: int) -> "system.epoll":
        return self._epolls[self._places.get(fd, SocketPlace.NEW)]

    def _look_back(self, looks: bool) -> None:
        if looks != self._looks_back:
            self._looks_back = looks
            self._front.modify(self._back_fd, system.EPOLLIN if looks else 0)


def _descriptor_of(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _epoll_mask(events: int) -> int:
    reads = system.EPOLLIN if events & selectors.EVENT_READ else 0
    return reads | (system.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _asyncio_events(mask: int) -> int:
    """Return the events of asyncio. An error or a hang-up is both."""
    if mask == 1:  # system.EPOLLIN: nearly always
        return selectors.EVENT_READ
    writes = selectors.EVENT_WRITE if mask & ~system.EPOLLIN else 0
    return writes | (selectors.EVENT_READ if mask & ~system.EPOLLOUT else 0)
