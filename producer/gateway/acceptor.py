"""Accept connections. A silent connection, which has not sent a byte yet, costs an open file and no more.

A transport and a parser for each connection would take the event loop ten times as long, and a client that
attacks the gateway may open many connections that stay silent.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

#: The most connections accepted in one turn of the loop.
ACCEPTS_A_TURN = 16
#: How long no connection is accepted after the system refused a file for one.
NO_FILE_SECONDS = 0.1


class Acceptor:
    """Accepts connections for one event loop, and hands each to a new protocol at its first byte.

    At most `max_silent` connections may be silent: beyond that, the one that is silent longest is closed. A
    connection is closed after `max_silent_seconds` of silence.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol_factory: Callable[[], asyncio.Protocol],
        *,
        max_silent: int,
        max_silent_seconds: float,
    ) -> None:
        """Start to accept the connections of a listening socket, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._listener, self._protocol_factory = listener, protocol_factory
        self._max_silent, self._max_silent_seconds = max_silent, max_silent_seconds
        #: The silent connections and the times at which they were accepted, the oldest first.
        self._silent: dict[socket.socket, float] = {}
        #: The tasks that connect protocols, kept so that the garbage collector does not end them.
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._start_accepting()

    def close(self) -> None:
        """Accept nothing more, and close the silent connections."""
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        while self._silent:
            self._close_silent(next(iter(self._silent)))

    def _start_accepting(self) -> None:
        """Accept connections as they come, unless the socket has been closed."""
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept_connections)

    def _accept_connections(self) -> None:
        """Accept some connections, watch each for its first byte, and close those that are too many."""
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError:
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(NO_FILE_SECONDS, self._start_accepting)
                break
            connection.setblocking(False)
            self._silent[connection] = self._loop.time()
            self._loop.add_reader(connection.fileno(), self._begin_or_close, connection)
        while len(self._silent) > self._max_silent:
            self._begin_or_close(next(iter(self._silent)))
        if self._timer is None:
            self._close_old()

    def _begin_or_close(self, connection: socket.socket) -> None:
        """Hand a silent connection to a protocol if its first byte has come. Otherwise close it."""
        with suppress(OSError):
            if connection.recv(1, socket.MSG_PEEK):
                self._loop.remove_reader(connection.fileno())
                del self._silent[connection]
                task = self._loop.create_task(self._connect_protocol(connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return
        self._close_silent(connection)

    async def _connect_protocol(self, connection: socket.socket) -> None:
        """Connect a socket to a new protocol. Close it if the client has closed the connection."""
        try:
            await self._loop.connect_accepted_socket(self._protocol_factory, connection)
        except OSError:
            connection.close()

    def _close_silent(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection.fileno())
        del self._silent[connection]
        connection.close()

    def _close_old(self) -> None:
        """Close the connections that have been silent too long, and set the timer to the next one."""
        now = self._loop.time()
        for connection, accepted_at in list(self._silent.items()):
            if accepted_at + self._max_silent_seconds > now:
                break
            self._begin_or_close(connection)
        oldest_at = next(iter(self._silent.values()), None)
        self._timer = (
            None
            if oldest_at is None
            else self._loop.call_at(oldest_at + self._max_silent_seconds, self._close_old)
        )
