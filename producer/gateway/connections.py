"""HTTP connections with the limits that uvicorn lacks, so that no client can starve the others.

uvicorn's parser has no maximum for the size or the time of a header, and its limit of connections counts
those that never sent a request. Here a header has a maximum size and time. If too many connections are open,
the one that has waited longest for a request is closed. A health probe is answered whatever the number of
requests under way.
"""

import asyncio
import resource
from collections.abc import Callable
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from millpond.producer.gateway.loop_shares import LoopShares
from millpond.producer.gateway.priority_selector import PrioritySelector, SocketPriority
from millpond.tasks.settings import Gateway

#: The maximum of all headers of a request together, of its trailers, and of the bytes of an HTTP chunk beside
#: its data.
MAX_HEADER_BYTES = 64 * 1024
#: The longest time that a header may take, unless the idle timeout of bodies is less.
HEADER_SECONDS = 10.0
#: The part of the connections that may be open beyond the maximum of requests under way.
_RESERVED = 0.1
#: The silent connections that may be open: as a part of all connections, and their minimum number.
_SILENT, _LEAST_SILENT = 0.1, 16
#: The time of the loop that a connection is charged for being accepted and ended. It cannot be measured.
CONNECTION_SECONDS = 0.0003
#: The most files that are open beside the connections of clients.
_OTHER_FILES = 500


class ConnectionLimits:
    """The limits that the connections of one event loop share, and those that wait for a request."""

    def __init__(self, settings: Gateway, shares: LoopShares, selector: PrioritySelector | None) -> None:
        self.shares, self.selector = shares, selector
        self.max_connections = settings.max_connections
        self.max_requests = max_open_requests(settings)
        self.max_silent = max_silent_connections(settings)
        self.header_seconds = min(HEADER_SECONDS, settings.idle_seconds)
        #: Connections without a request, the one that waits longest first.
        self.waiting: dict[BoundedConnection, None] = {}

    def close_surplus(self, connections: set[Any]) -> None:
        """Close the connections that wait longest for a request while more than the maximum are open.

        `connections` are the open connections. The closed ones are removed from the set.
        """
        while len(connections) > self.max_connections and self.waiting:
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            connections.discard(connection)
            connection.transport.abort()


def max_open_requests(settings: Gateway) -> int:
    """Return the number of requests that may be under way at once."""
    return max(1, int(settings.max_connections * (1 - _RESERVED)))


def max_silent_connections(settings: Gateway) -> int:
    """Return the number of connections that may be open before their first byte."""
    return max(_LEAST_SILENT, int(settings.max_connections * _SILENT))


def raise_open_file_limit(settings: Gateway) -> None:
    """Raise the process's limit of open files to what the connections need, at most to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + max_silent_connections(settings) + _OTHER_FILES
    if soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class BoundedConnection(HttpToolsProtocol):
    """One connection of a client, within the limits of all. Overrides the callbacks of uvicorn's protocol."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        #: Bytes received since a header, or a piece of a body, was complete.
        self._incomplete_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        #: The token of the requests, None before the first, and the time of the loop before it was known.
        self._token: str | None = None
        self._uncharged_seconds = 0.0
        #: The descriptor of the socket, -1 while the connection is not open.
        self._fd = -1

    def charge_to(self, token: str) -> None:
        """Charge to a token the time of the loop that this connection took so far, and will take."""
        if token == self._token:
            return
        if self._token is not None:
            self._limits.shares.forget_connection(self._token, self)
        self._token = token
        self._limits.shares.charge_seconds(token, self._uncharged_seconds)

    def set_priority(self, priority: SocketPriority) -> None:
        """Set the priority of this connection's socket, if the connection is open."""
        if self._limits.selector is not None and self._fd >= 0:
            self._limits.selector.set_priority(self._fd, priority)

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, for a limited time. May close other connections that wait."""
        super().connection_made(transport)
        self._fd = transport.get_extra_info("socket").fileno()
        self._limits.waiting[self] = None
        self._start_timer()
        self._limits.close_surplus(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. Charges its token, if it has one, `CONNECTION_SECONDS`."""
        self._stop_waiting()
        # The number of the socket will be used again, and the next connection with it must begin as new.
        self.set_priority(SocketPriority.NEW)
        self._fd = -1
        if self._token is not None:
            self._limits.shares.charge_seconds(self._token, CONNECTION_SECONDS)
            self._limits.shares.forget_connection(self._token, self)
        super().connection_lost(exc)
        # Both refer to this connection. Without them it is freed at once, not by a garbage collection.
        self.cycle = self.scope = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse data, and close the connection if a header is too long. Charge the time to the token."""
        began = monotonic()
        if self in self._limits.waiting:
            self._start_timer()
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response(f"A header may have {MAX_HEADER_BYTES} bytes.")
            else:
                self.transport.abort()
        if self._token is None:
            self._uncharged_seconds += monotonic() - began
        else:
            self._limits.shares.charge_seconds(self._token, monotonic() - began)

    def on_message_begin(self) -> None:
        """Begin a request. Its scope has this connection, for the middleware."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        """Start a request, or respond with 503 if too many are under way. A health probe always starts."""
        self._incomplete_bytes = 0
        self._stop_waiting()
        may_start = len(self.tasks) < self._limits.max_requests or self.url.startswith(b"/health/")
        self.limit_concurrency = None if may_start else 0  # with 0, uvicorn responds with 503
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a piece of a body."""
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Receive the end of a request."""
        self._incomplete_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has begun already."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            self._limits.waiting[self] = None

    def _start_timer(self) -> None:
        """Close the connection after the longest time of a header, unless the timer runs already."""
        if self._header_timer is None:
            close: Callable[[], None] = self.transport.abort
            self._header_timer = self.loop.call_later(self._limits.header_seconds, close)

    def _stop_waiting(self) -> None:
        """Remove the connection from those that wait for a request, and stop the timer of its header."""
        self._limits.waiting.pop(self, None)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
