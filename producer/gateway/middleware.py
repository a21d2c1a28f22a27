"""ASGI middleware before the routes: authentication, limits of bodies, no payloads in logs or errors."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.producer.gateway.auth import authenticate
from millpond.producer.gateway.connections import max_open_requests
from millpond.producer.gateway.headers import NDJSON, media_type
from millpond.producer.gateway.loop_shares import UNAUTHENTICATED, LoopShares
from millpond.producer.gateway.priority_selector import SocketPriority
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.shares import Shares
from millpond.producer.gateway.timeouts import IdleTimeout
from millpond.tasks.settings import Gateway

log = logging.getLogger("millpond.gateway")

#: A body of one task may take this many idle timeouts, and the time that its bytes take at this rate.
BODY_TIMEOUTS = 2
MIN_BYTES_A_SECOND = 1_000

#: The requests that may wait for their bodies at once: as a part of all requests, and their minimum number.
_BODIES, _LEAST_BODIES = 0.2, 32


class RequestGuard:
    """ASGI middleware that authenticates a request, bounds its body, and catches its errors.

    Sets `scope["state"]["principal"]`. `endpoints` handle the busiest paths without FastAPI, whose own work
    costs more than the endpoint. All other paths are handled by the application.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Gateway,
        endpoints: Mapping[str, ASGIApp],
        loop_shares: LoopShares | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._endpoints = endpoints
        self._idle_timeout = IdleTimeout(settings.idle_seconds)
        self._requests = Shares(max_open_requests(settings), len(settings.tokens), "requests")
        bodies = max(_LEAST_BODIES, int(max_open_requests(settings) * _BODIES))
        self._bodies = Shares(bodies, len(settings.tokens), "bodies on their way")
        # Requests without a known token have the share of one token of several.
        self._unauthenticated = Shares(max_open_requests(settings), 2, "requests")
        self._loop_shares = loop_shares or LoopShares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. An unexpected error is logged and not raised."""
        try:
            if scope["path"].startswith("/health/"):
                await self._app(scope, receive, send)
                return
            headers = Headers(scope=scope)
            try:
                principal = authenticate(self._settings.tokens, headers)
            except ApiError as error:
                await self._refuse_unauthenticated(error, scope, receive, send)
                return
            scope.setdefault("state", {})["principal"] = principal
            await self._handle_in_share(principal.name, headers, scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except asyncio.CancelledError:
            log.warning("cut off at the drain deadline: %s %s", scope["method"], scope["path"])
        except Exception as error:  # a response was sent already
            _log_traceback(error)

    async def _handle_in_share(
        self, token: str, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Handle a request when its token's share of the loop allows it, and charge its time to the token.

        Without configured tokens only the number of requests is bounded. Raises `ApiError` 503 if the token
        has its share of the requests.
        """
        connection = scope["state"].get("connection")
        if not self._settings.tokens:
            if connection is not None:
                connection.set_priority(SocketPriority.FOREGROUND)
            with self._requests.hold_share(token):
                await self._handle_authenticated(headers, scope, receive, send)
            return
        if connection is not None:
            connection.charge_to(token)
        number = self._loop_shares.begin_request(token, connection)
        try:
            with self._requests.hold_share(token):
                await self._loop_shares.wait_turn(token)
                await self._loop_shares.run_metered(
                    token, self._handle_authenticated(headers, scope, receive, send)
                )
        finally:
            self._loop_shares.end_request(token, number)

    async def _refuse_unauthenticated(
        self, error: ApiError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Respond with an error to a request without a known token. Together these have one share of the
        loop's time and of the open requests."""
        with self._unauthenticated.hold_share(UNAUTHENTICATED):
            await self._loop_shares.wait_turn(UNAUTHENTICATED)
            await self._loop_shares.run_metered(UNAUTHENTICATED, error.response()(scope, receive, send))
            self._loop_shares.charge_refusal(UNAUTHENTICATED)

    async def _handle_authenticated(
        self, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Handle a request of a known principal, by the endpoint of its path or by the application."""
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            receive = self._bound_body(headers, scope["state"]["principal"].name, receive)
            await (endpoint or self._app)(scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)

    def _bound_body(self, headers: Headers, token: str, receive: Receive) -> Receive:
        """Return a `receive` that bounds a body, and awaits the token's turn for each piece but the first.

        Raises `ApiError` for a compressed body, and for one that is announced as too large.
        """
        coding = headers.get("content-encoding", "identity")
        if coding.strip().lower() != "identity":
            text = f"a body is read as it is sent, not as {coding:.40}: leave out Content-Encoding"
            raise ApiError(415, "content_encoding", text)
        is_stream = media_type(headers) == NDJSON
        limit = self._settings.max_stream_bytes if is_stream else self._settings.max_task_bytes
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large_error(limit)

        async def receive_in_share() -> Message:
            with self._bodies.hold_share(token):
                return await receive()

        return _bound_receive(
            receive if is_stream else receive_in_share,  # the number of streams is bounded elsewhere
            limit,
            self._idle_timeout,
            lambda: self._loop_shares.wait_turn(token),
            is_stream=is_stream,
        )


def _bound_receive(
    receive: Receive,
    limit: int,
    idle_timeout: IdleTimeout,
    wait_turn: Callable[[], Awaitable[None]],
    *,
    is_stream: bool,
) -> Receive:
    """Return a `receive` of at most `limit` bytes, each piece within the idle timeout.

    The body of one task also has a minimum rate. A stream may last as long as its client has data to send.
    """
    received, has_more, started = 0, True, time.monotonic()

    async def receive_bounded() -> Message:
        """Return the next piece of the body. Raises `ApiError` 408 or 413."""
        nonlocal received, has_more
        if received:
            await wait_turn()
        try:
            message = await (idle_timeout.receive(receive) if has_more else receive())
        except TimeoutError:
            raise ApiError(
                408, "idle", f"no part of the body came for {idle_timeout.idle_seconds:g} s"
            ) from None
        has_more = message.get("more_body", False)
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large_error(limit)
        max_seconds = BODY_TIMEOUTS * idle_timeout.idle_seconds + received / MIN_BYTES_A_SECOND
        if has_more and not is_stream and time.monotonic() - started > max_seconds:
            text = f"the body comes slower than {MIN_BYTES_A_SECOND} bytes a second"
            raise ApiError(408, "too_slow", text)
        return message

    return receive_bounded


def _too_large_error(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"the body is longer than {limit} bytes: send less at once")


def _log_traceback(error: Exception) -> None:
    """Log the last calls of an error's traceback, without its message, which may repeat a payload."""
    calls = "".join(traceback.format_tb(error.__traceback__)[-3:])
    log.error("%s in a request, at\n%s", type(error).__name__, calls.rstrip())
