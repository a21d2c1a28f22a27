"""HTTP connections of which no number and no header starves the others: the bounds that uvicorn leaves open.

uvicorn's parser in C has no bound for a header and no timeout for a header that never ends, and its limit of
connections counts connections that never sent a request. Here a header has a maximum size and time. If too
many connections are open, the one that waits longest for its request is closed. A probe gets its response
whatever the number of requests.
"""

import asyncio
import resource
from collections.abc import Callable
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from millpond.producer.gateway.loop_shares import LoopShares
from millpond.producer.gateway.priority_selector import PrioritySelector, SocketPlace
from millpond.tasks.settings import Gateway

#: All headers of a request together, its trailers, and the bytes of a chunk beside its data.
MAX_HEADER_BYTES = 64 * 1024
#: The time that a header may take, unless the idle timeout of bodies is less.
HEADER_SECONDS = 10.0
#: The part of the connections that is kept for requests on their way: probes among them.
_RESERVED = 0.1
#: Connections that may be silent since they opened, as a part of the others, and their minimum number.
_SILENT, _LEAST_SILENT = 0.1, 16
#: The loop's time to accept a connection and to end it. It is not measured: most of it is asyncio's.
CONNECTION_SECONDS = 0.0003
#: Files that are open beside the connections of clients.
_OTHER_FILES = 500


class ConnectionLimits:
    """The limits that all connections of one event loop share, and those that wait for a request."""

    def __init__(self, settings: Gateway, shares: LoopShares, selector: PrioritySelector | None) -> None:
        self.shares, self.selector = shares, selector
        self.connections = settings.max_connections
        self.requests = max_open_requests(settings)
        self.header_seconds = min(HEADER_SECONDS, settings.idle_seconds)
        self.silent = most_silent(settings)
        #: Connections without a request, the one that waits longest first.
        self.waiting: dict[BoundedConnection, None] = {}

    def make_room(self, open_: set[Any]) -> None:
        """Close connections that wait for their request while more are open than may be."""
        while len(open_) > self.connections and self.waiting:
            self._close_waiting(next(iter(self.waiting)), open_)

    def _close_waiting(self, connection: "BoundedConnection", open_: set[Any]) -> None:
        self.waiting.pop(connection, None)
        open_.discard(connection)
        connection.transport.abort()


def max_open_requests(settings: Gateway) -> int:
    """Return the number of requests that may be under way at once."""
    return max(1, int(settings.max_connections * (1 - _RESERVED)))


def most_silent(settings: Gateway) -> int:
    """Return the number of connections that may be open before their first byte."""
    return max(_LEAST_SILENT, int(settings.max_connections * _SILENT))


def connection_factory(limits: ConnectionLimits) -> Any:
    """Return the factory of the connections, for `uvicorn.Config(http=…)`."""

    def connection(*args: Any, **kwargs: Any) -> BoundedConnection:
        return BoundedConnection(limits, *args, **kwargs)

    return connection


def raise_open_file_limit(settings: Gateway) -> None:
    """Raise the process's limit of open files to the number that the connections need, if that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + most_silent(settings) + _OTHER_FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class BoundedConnection(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        #: Bytes received since a header, or a piece of a body, was complete.
        self._incomplete = 0
        self._header_timer: asyncio.TimerHandle | None = None
        #: The token of its requests, None before the first, and the loop's time that is not charged yet.
        self._token: str | None = None
        self._uncharged = 0.0
        self._fd = -1

    def belongs_to(self, token: str) -> None:
        """Charge to a token the time that this connection took and will take."""
        if token == self._token:
            return
        if self._token is not None:
            self._limits.shares.forget_connection(self._token, self)
        self._token = token
        self._limits.shares.charge_seconds(token, self._uncharged)

    def put(self, place: SocketPlace) -> None:
        """Put it forward or behind."""
        if self._limits.selector is not None and self._fd >= 0:
            self._limits.selector.put(self._fd, place)

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._fd = transport.get_extra_info("socket").fileno()
        self._limits.waiting[self] = None
        self._start_timer()
        self._limits.make_room(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        self.put(SocketPlace.NEW)
        self._fd = -1
        if self._token is not None:
            self._limits.shares.charge_seconds(self._token, CONNECTION_SECONDS)
            self._limits.shares.forget_connection(self._token, self)
        super().connection_lost(exc)
        # Each of these names this connection: without them it is freed at once, not by a garbage collection.
        self.cycle = self.scope = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read, and close the connection if a header is too long."""
        began = monotonic()
        if self in self._limits.waiting:
            self._start_timer()
        self._incomplete += len(data)
        super().data_received(data)
        if self._incomplete > MAX_HEADER_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response(f"A header may have {MAX_HEADER_BYTES} bytes.")
            else:
                self.transport.abort()
        if self._token is None:
            self._uncharged += monotonic() - began
        else:
            self._limits.shares.charge_seconds(self._token, monotonic() - began)

    def on_message_begin(self) -> None:
        """Begin a request, which knows its connection."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        """Start a request, or respond with 503 if too many are under way. A probe is always started."""
        self._incomplete = 0
        self._stop_waiting()
        may_start = len(self.tasks) < self._limits.requests or self.url.startswith(b"/health/")
        self.limit_concurrency = None if may_start else 0  # which uvicorn finds exceeded
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Read a piece of a body."""
        self._incomplete = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Read the end of a request."""
        self._incomplete = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            self._limits.waiting[self] = None

    def _start_timer(self) -> None:
        if self._header_timer is None:
            close: Callable[[], None] = self.transport.abort
            self._header_timer = self.loop.call_later(self._limits.header_seconds, close)

    def _stop_waiting(self) -> None:
        """Stop waiting for the headers of a request."""
        self._limits.waiting.pop(self, None)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
