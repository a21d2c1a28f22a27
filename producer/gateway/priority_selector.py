"""The order in which the event loop looks at its sockets: those of light tokens always, the others a few at
a time and, while a light token's request is under way, for half of the time at most.

A loop that never rests also keeps its own threads from the interpreter: a thread that waits for it is woken
by every system call of the loop, comes too late, and waits anew. In the rests a light request's calls run.
"""

import select as system
import selectors
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

#: Sockets of the background that are read in one turn of the loop; and while a light request is under way.
AT_ONCE, AT_ONCE_BESIDE = 8, 1
#: The rest of the background after its work, as a part of that work, beside a light request.
REST = 3.0
#: The longest rest, however much there is to do for light tokens.
LONGEST_REST_SECONDS = 0.05
#: A light request holds up the background for so long: later it is a stream, or waits for something else.
HOLDING_SECONDS = 0.5


class Background:
    """When the background may go on: always, or after a rest where a light request is under way."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._light, self._holds_until = 0, 0.0
        self._went_on_at, self._worked = clock(), 0.0
        self._left_select_at = clock()

    @property
    def is_held(self) -> bool:
        """True while a light request is under way."""
        return self._light > 0 and self._clock() < self._holds_until

    def light_began(self) -> None:
        """Count a light request that begins."""
        self._light += 1
        self._holds_until = self._clock() + HOLDING_SECONDS

    def light_ended(self) -> None:
        """Count a light request that ended."""
        self._light -= 1

    def rest_seconds(self) -> float:
        """Return the time until the background may go on, 0 for now."""
        if not self.is_held:
            return 0.0
        rest = self._worked * (1 + REST)
        return max(0.0, self._went_on_at + min(rest, LONGEST_REST_SECONDS) - self._clock())

    def enter_select(self) -> None:
        """Count the work of the loop since it last looked at its sockets."""
        self._worked += self._clock() - self._left_select_at

    def leave_select(self, *, went_on: bool) -> None:
        """Begin to count anew where the background went on."""
        self._left_select_at = self._clock()
        if went_on:
            self._went_on_at, self._worked = self._left_select_at, 0.0


class PrioritySelector(selectors.BaseSelector):
    """A selector with a background, in which every socket is that was registered after `start`, until it is
    brought forward."""

    def __init__(self, background: Background) -> None:
        self._pace = background
        self._front, self._back = system.epoll(), system.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        #: Sockets that are not in the background; a socket stays one while it is not registered.
        self._forward: set[int] = set()
        self._is_started = self._looks_back = False
        self._front.register(self._back.fileno(), 0)

    def start(self) -> None:
        """Register every further socket in the background."""
        self._is_started = True

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a socket."""
        fd = _number(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        if not self._is_started:
            self._forward.add(fd)
        self._epoll(fd).register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a socket."""
        key = self._keys.pop(_number(fileobj))
        with suppress(OSError):  # it is closed
            self._epoll(key.fd).unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change the events and the data of a socket."""
        old = self._keys[_number(fileobj)]
        if events != old.events:
            self._epoll(old.fd).modify(old.fd, _mask(events))
        key = self._keys[old.fd] = old._replace(events=events, data=data)
        return key

    def put(self, fd: int, *, behind: bool) -> None:
        """Put a socket into the background, or bring it forward; before it is closed it is put back."""
        if (fd not in self._forward) == behind:
            return
        key = self._keys.get(fd)
        if key is not None:
            self._epoll(fd).unregister(fd)
        (self._forward.discard if behind else self._forward.add)(fd)
        if key is not None:
            self._epoll(fd).register(fd, _mask(key.events))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the sockets that are ready, those of the background last."""
        self._pace.enter_select()
        rest = self._pace.rest_seconds()
        self._look_back(rest <= 0)
        if rest > 0:
            timeout = rest if timeout is None else min(timeout, rest)
        found = self._front.poll(timeout, len(self._keys) + 1)
        back = self._back.fileno()
        went_on = any(fd == back for fd, _ in found)
        if went_on:
            found = [each for each in found if each[0] != back]
            found += self._back.poll(0, AT_ONCE_BESIDE if self._pace.is_held else AT_ONCE)
        self._pace.leave_select(went_on=went_on)
        return [
            (self._keys[fd], _events(mask) & self._keys[fd].events) for fd, mask in found if fd in self._keys
        ]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the sockets by their numbers."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return what is registered for a socket."""
        return self._keys[_number(fileobj)]

    def close(self) -> None:
        """Close the selector."""
        self._front.close()
        self._back.close()
        self._keys.clear()

    def _epoll(self, fd: int) -> system.epoll:
        return self._front if fd in self._forward else self._back

    def _look_back(self, looks: bool) -> None:
        if looks != self._looks_back:
            self._looks_back = looks
            self._front.modify(self._back.fileno(), system.EPOLLIN if looks else 0)


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _mask(events: int) -> int:
    reads = system.EPOLLIN if events & selectors.EVENT_READ else 0
    return reads | (system.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _events(mask: int) -> int:
    """Return the events of asyncio; an error or a hang-up is both."""
    writes = selectors.EVENT_WRITE if mask & ~system.EPOLLIN else 0
    return writes | (selectors.EVENT_READ if mask & ~system.EPOLLOUT else 0)
