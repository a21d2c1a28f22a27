"""The order in which the event loop reads its sockets: the foreground always, the background a few at a time.

The connections of light tokens are the foreground, new connections and those of heavy tokens the background.
While light tokens are active, the background has at most a quarter of the loop's time, and a fifth while a
request of a light token is under way.

In the rests between, the threads with the calls of light requests get the interpreter. A loop that never
rests releases it for a moment at each system call, and has taken it again before another thread wakes up.
"""

import select as system
import selectors
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum
from itertools import count
from time import monotonic
from typing import Any

#: The most new sockets, and the most sockets of heavy tokens, that are read in one turn of the loop, by level
#: of light activity: 0 no light token is active, 1 one is, 2 a request of one is under way.
SOCKETS_A_TURN = ((8, 8), (3, 1), (3, 1))
#: The background rests for this many times as long as the loop worked since it was last read, by the level.
REST_FACTORS = (0.0, 3.0, 4.0)
#: The longest rest of the background.
LONGEST_REST_SECONDS = 0.03
#: A light token is active for this time after the begin of a request.
LIGHT_SECONDS = 1.0
#: A light request counts as under way for at most this time: later it is a stream, or waits for a call.
LIGHT_REQUEST_SECONDS = 0.5


class BackgroundThrottle:
    """Decides when the background may be read: always, or after a rest if light tokens are active."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        #: The numbers of light requests under way and when each began, the first first.
        self._light_requests: dict[int, float] = {}
        self._numbers = count()
        self._last_light_at = -LIGHT_SECONDS
        #: When the background was last read, and for how long the loop has worked since.
        self._read_at, self._work_seconds = clock(), 0.0
        self._left_select_at = clock()

    @property
    def level(self) -> int:
        """The level of light activity now, the index in `SOCKETS_A_TURN` and `REST_FACTORS`."""
        return self._level_at(self._clock())

    def _level_at(self, now: float) -> int:
        """Return the level at a time. Forgets light requests that are under way for too long to count."""
        if now >= self._last_light_at + LIGHT_SECONDS:
            return 0
        while self._light_requests:
            first, began = next(iter(self._light_requests.items()))
            if now < began + LIGHT_REQUEST_SECONDS:
                return 2
            del self._light_requests[first]
        return 1

    @property
    def has_light_request(self) -> bool:
        """True while a light request is under way."""
        return self.level == 2

    def begin_light_request(self) -> int:
        """Count a light request that begins, and return its number."""
        number = next(self._numbers)
        self._light_requests[number] = self._last_light_at = self._clock()
        return number

    def end_light_request(self, number: int) -> None:
        """Forget a light request that ended, or whose token has become heavy."""
        self._light_requests.pop(number, None)

    def rest_seconds(self) -> float:
        """Return the seconds until the background may be read, 0 if it may be read now."""
        now = self._clock()
        if now >= self._read_at + LONGEST_REST_SECONDS:
            return 0.0
        seconds = self._work_seconds * (1 + REST_FACTORS[self._level_at(now)])
        return max(0.0, self._read_at + min(seconds, LONGEST_REST_SECONDS) - now)

    def enter_select(self) -> None:
        """Add the time since the loop left `select` to its work."""
        self._work_seconds += self._clock() - self._left_select_at

    def leave_select(self, *, read_background: bool) -> None:
        """Keep the time. If the background was read, count the work from now on."""
        self._left_select_at = self._clock()
        if read_background:
            self._read_at, self._work_seconds = self._left_select_at, 0.0


class SocketPriority(IntEnum):
    """The priority of a socket. `FOREGROUND` is always read. `NEW` and `HEAVY` make the background.

    Each of these two is read a few sockets at a time, so that a new socket does not wait for heavy tokens.
    """

    FOREGROUND, NEW, HEAVY = range(3)


class PrioritySelector(selectors.BaseSelector):
    """A selector with a foreground and a background. A socket that is registered after `start` is new."""

    def __init__(self, throttle: BackgroundThrottle) -> None:
        self._throttle = throttle
        self._epolls = [system.epoll() for _ in SocketPriority]
        self._foreground, *self._background = self._epolls
        #: Is ready when a socket of the background is. The foreground watches it while the background may be
        #: read.
        self._gate = system.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        #: The priorities of sockets that are not new. They are kept while a socket is not registered.
        self._priorities: dict[int, SocketPriority] = {}
        self._is_started = self._gate_is_open = False
        self._gate_fd = self._gate.fileno()
        self._foreground.register(self._gate_fd, 0)
        for epoll in self._background:
            self._gate.register(epoll.fileno(), system.EPOLLIN)

    def start(self) -> None:
        """Give each socket that is registered from now on the priority `NEW`. Those before are foreground."""
        self._is_started = True

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a socket. Raises `KeyError` if it is registered."""
        fd = _descriptor_of(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        if not self._is_started:
            self._priorities[fd] = SocketPriority.FOREGROUND
        self._epoll_of(fd).register(fd, _epoll_mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a socket."""
        key = self._keys.pop(_descriptor_of(fileobj))
        with suppress(OSError):  # a socket may be closed before it is unregistered
            self._epoll_of(key.fd).unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change the events and the data of a socket."""
        old = self._keys[_descriptor_of(fileobj)]
        if events != old.events:
            self._epoll_of(old.fd).modify(old.fd, _epoll_mask(events))
        key = self._keys[old.fd] = old._replace(events=events, data=data)
        return key

    def set_priority(self, fd: int, priority: SocketPriority) -> None:
        """Set the priority of a socket. Set `NEW` before it is closed, since its number is used again."""
        if self._priorities.get(fd, SocketPriority.NEW) is priority:
            return
        key = self._keys.get(fd)
        if key is not None:
            self._epoll_of(fd).unregister(fd)
        if priority is SocketPriority.NEW:
            del self._priorities[fd]
        else:
            self._priorities[fd] = priority
        if key is not None:
            self._epoll_of(fd).register(fd, _epoll_mask(key.events))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the sockets that are ready, those of the background last and at most a few of them.

        Waits no longer than until the background may be read.
        """
        self._throttle.enter_select()
        rest = self._throttle.rest_seconds()
        self._set_gate(rest <= 0)
        if rest > 0:
            timeout = rest if timeout is None else min(timeout, rest)
        events = self._foreground.poll(timeout, len(self._keys) + 1)
        ready, keys, gate_fd, read_background = [], self._keys, self._gate_fd, False
        for fd, mask in events:
            key = keys.get(fd)
            if key is not None:
                ready.append((key, _selector_events(mask) & key.events))
            elif fd == gate_fd:
                read_background = True
        if read_background:
            for epoll, max_count in zip(self._background, SOCKETS_A_TURN[self._throttle.level], strict=True):
                ready += [
                    (keys[fd], _selector_events(mask) & keys[fd].events)
                    for fd, mask in epoll.poll(0, max_count)
                ]
        self._throttle.leave_select(read_background=read_background)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the keys of all sockets by their descriptors."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return the key that is registered for a socket."""
        return self._keys[_descriptor_of(fileobj)]

    def close(self) -> None:
        """Close the selector."""
        for epoll in (self._gate, *self._epolls):
            epoll.close()
        self._keys.clear()

    def _epoll_of(self, fd: int) -> "system.epoll":
        return self._epolls[self._priorities.get(fd, SocketPriority.NEW)]

    def _set_gate(self, is_open: bool) -> None:
        """Start or stop watching the background from the foreground."""
        if is_open != self._gate_is_open:
            self._gate_is_open = is_open
            self._foreground.modify(self._gate_fd, system.EPOLLIN if is_open else 0)


def _descriptor_of(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _epoll_mask(events: int) -> int:
    """Return the events of epoll for those of `selectors`."""
    reads = system.EPOLLIN if events & selectors.EVENT_READ else 0
    return reads | (system.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _selector_events(mask: int) -> int:
    """Return the events of `selectors` for those of epoll. An error or a hang-up counts as both."""
    if mask == 1:  # system.EPOLLIN: nearly always
        return selectors.EVENT_READ
    writes = selectors.EVENT_WRITE if mask & ~system.EPOLLIN else 0
    return writes | (selectors.EVENT_READ if mask & ~system.EPOLLOUT else 0)
