"""The gateway's middleware: idle timeouts, and unexpected errors that repeat no payload."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive

from millpond.producer.gateway.middleware import RequestGuard
from millpond.producer.gateway.routes.send import SendEndpoint
from millpond.tasks.settings import Gateway

Answer = Callable[[Any, Receive], Awaitable[PlainTextResponse]]


class _Answering(SendEndpoint):
    """A `SendEndpoint` with an answer of the test's."""

    def __init__(self, answer: Answer) -> None:
        self.respond = answer  # type: ignore[method-assign, assignment]


def ask(answers: Answer, *bodies: Receive) -> list[int]:
    """Make a request for each of these bodies at once; return the statuses of the answers."""
    guard_settings = Gateway(idle_seconds=0.2)
    single = _Answering(answers)

    async def one(guard: RequestGuard, body: Receive) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/send/one",
            "headers": [(b"host", b"localhost")],
            "query_string": b"",
        }
        await guard(scope, body, send)
        return int(sent[0]["status"])

    async def all_() -> list[int]:
        guard = RequestGuard(PlainTextResponse("another route", 404), guard_settings, {"/send/one": single})
        return list(await asyncio.gather(*(one(guard, body) for body in bodies)))

    return asyncio.run(all_())


async def _read(_scope: Any, receive: Receive) -> PlainTextResponse:
    while (await receive()).get("more_body"):
        pass
    return PlainTextResponse("read", 202)


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def _in_pieces(*pauses: float) -> Receive:
    """Yield a piece of a body after each of these pauses."""
    left = list(pauses)

    async def receive() -> Message:
        await asyncio.sleep(left.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": bool(left)}

    return receive


def test_a_body_that_stops_coming_is_given_up_and_a_slow_one_is_not() -> None:
    """Each wait for a piece ends after the idle time, beside other waits; a body may take longer in all."""
    bodies = (_never, _in_pieces(0.1, 0.1, 0.1), _in_pieces(0), _in_pieces(0.1, 5), _never)
    assert ask(_read, *bodies) == [408, 202, 202, 408, 408]


def test_an_unexpected_error_repeats_no_payload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unexpected error is a 500; the log names its type and place, and not its message."""

    secret = "correct-horse-battery"

    async def fails(_scope: Any, _receive: Receive) -> PlainTextResponse:
        raise RuntimeError(secret)

    assert ask(fails, _in_pieces(0)) == [500]
    assert "RuntimeError in a request" in caplog.text
    assert secret not in caplog.text
