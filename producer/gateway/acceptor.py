"""Accepts connections. A connection without a byte so far costs a file and no more.

A transport and a parser for each connection that is opened would take the event loop ten times as long, and
many are opened to say nothing.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

#: Connections accepted in one turn of the loop.
AT_ONCE = 16
#: How long no connection is accepted after the system had no file for one.
NO_FILE_SECONDS = 0.1


class Acceptor:
    """Accepts connections for one event loop.

    `silent` is the number of those that may be open before their first byte: beyond it, the one that is
    silent longest is closed. Each is closed after `seconds`.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        silent: int,
        seconds: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening, self._protocol = listening, protocol
        self._most, self._seconds = silent, seconds
        #: The silent connections and the times at which they were opened, the first first.
        self._silent: dict[socket.socket, float] = {}
        self._begun: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._resume_accepting()

    def close(self) -> None:
        """Accept nothing more, and close the silent connections."""
        self._loop.remove_reader(self._listening.fileno())
        if self._timer is not None:
            self._timer.cancel()
        while self._silent:
            self._close_silent(next(iter(self._silent)))

    def _resume_accepting(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._accept_connections)

    def _accept_connections(self) -> None:
        """Accept some connections and watch each for its first byte."""
        for _ in range(AT_ONCE):
            try:
                opened, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError:
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(NO_FILE_SECONDS, self._resume_accepting)
                break
            opened.setblocking(False)
            self._silent[opened] = self._loop.time()
            self._loop.add_reader(opened.fileno(), self._begin_protocol, opened)
        while len(self._silent) > self._most:
            self._begin_protocol(next(iter(self._silent)))
        if self._timer is None:
            self._end_old()

    def _begin_protocol(self, opened: socket.socket) -> None:
        """Give a connection whose first byte has come to its protocol. Close it if it has ended."""
        with suppress(OSError):
            if opened.recv(1, socket.MSG_PEEK):
                self._loop.remove_reader(opened.fileno())
                del self._silent[opened]
                task = self._loop.create_task(self._connect_protocol(opened))
                self._begun.add(task)
                task.add_done_callback(self._begun.discard)
                return
        self._close_silent(opened)

    async def _connect_protocol(self, opened: socket.socket) -> None:
        """Connect an accepted socket to a new protocol, or close it if it has ended."""
        try:
            await self._loop.connect_accepted_socket(self._protocol, opened)
        except OSError:  # it has ended meanwhile
            opened.close()

    def _close_silent(self, opened: socket.socket) -> None:
        self._loop.remove_reader(opened.fileno())
        del self._silent[opened]
        opened.close()

    def _end_old(self) -> None:
        """Close the connections that are silent too long, and set the timer to the next one."""
        now = self._loop.time()
        for opened, opened_at in list(self._silent.items()):
            if opened_at + self._seconds > now:
                break
            self._begin_protocol(opened)
        first = next(iter(self._silent.values()), None)
        self._timer = None if first is None else self._loop.call_at(first + self._seconds, self._end_old)
