"""Stand before the routes: let in who may, bound what is read, keep what was sent out of logs and answers."""

import asyncio
import logging
import traceback
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.producer.gateway.auth import entering
from millpond.producer.gateway.problems import Refusal, refusal, surprised
from millpond.producer.gateway.routes.send import Single
from millpond.producer.gateway.timeouts import Idle
from millpond.tasks.settings import Gateway

log = logging.getLogger("millpond.gateway")

NDJSON = "application/x-ndjson"


class Guard:
    """Wrap the application; `scope["state"]["holder"]` names who asks.

    `singles` answer the paths that are asked most by themselves: what FastAPI does before it gets to them
    costs more than they do. Whatever else leads to such a route gets there through the application.
    """

    def __init__(self, app: ASGIApp, settings: Gateway, singles: Mapping[str, Single]) -> None:
        self._app = app
        self._settings = settings
        self._singles = singles
        self._idle = Idle(settings.idle_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if not scope["path"].startswith("/health/"):
                receive = self._enter(scope, receive)
            single = self._singles.get(scope["path"]) if scope["method"] == "POST" else None
            await (self._app if single is None else _alone(single))(scope, receive, send)
        except Refusal as refused:
            await refused.answer()(scope, receive, send)
        except asyncio.CancelledError:
            log.warning("cut at the drain deadline: %s %s", scope["method"], scope["path"])
        except Exception as error:  # answered already, by the application
            _note(error)

    def _enter(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["holder"] = entering(self._settings.tokens, headers)
        streams = headers.get("content-type", "").startswith(NDJSON)
        most = self._settings.max_stream_bytes if streams else self._settings.max_task_bytes
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise _too_large(most)
        return _bounded(receive, most, self._idle)


def _alone(single: Single) -> ASGIApp:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await single.answer(scope, receive)
        except Refusal:
            raise
        except Exception:
            await surprised().answer()(scope, receive, send)
            raise
        await answer(scope, receive, send)

    return answering


def _bounded(receive: Receive, most: int, idle: Idle) -> Receive:
    """Read at most so many bytes of a body, and wait for the next of them at most so long."""
    left, more = most, True

    async def receiving() -> Message:
        nonlocal left, more
        try:
            message = await (idle.receive(receive) if more else receive())
        except TimeoutError:
            raise refusal(408, "idle", f"nothing of the body came for {idle.seconds:g} s") from None
        more = message.get("more_body", False)
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(most)
        return message

    return receiving


def _too_large(most: int) -> Refusal:
    return refusal(413, "too_large", f"the body is longer than {most} bytes: send less at once")


def _note(error: Exception) -> None:
    """Log where it happened, and not the message: it may repeat what was sent."""
    where = "".join(traceback.format_tb(error.__traceback__)[-3:])
    log.error("%s in a request, at\n%s", type(error).__name__, where.rstrip())
