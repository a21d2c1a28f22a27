"""The gateway's response to an error of a route: a problem in JSON, whatever the error is."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI

from millpond.broker.errors import BrokerAway, QueueFull
from millpond.producer.gateway.app import add_error_handlers
from millpond.producer.gateway.problems import translate_error
from millpond.tasks.errors import FinalError


def response_to(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of the response to a request whose route raises this error."""
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/")
    async def route() -> None:
        raise error

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "app": app}
    with suppress(type(error)):  # raised again for the server, which logs it
        asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFull("q", bound=1, depth=1), 429, "queue_full"),
        (FinalError("of a middleware"), 500, "internal_error"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
def test_every_error_is_a_problem(error: Exception, status: int, code: str) -> None:
    """Also an error of Millpond that no route of the gateway expects."""
    found, body = response_to(error)
    assert (found, body["error"]["code"]) == (status, code)
    assert "secret" not in json.dumps(body)


def test_only_an_error_of_a_send_mentions_a_task() -> None:
    """Where a batch or a task is read and the broker is away, there is nothing to send again."""
    _, body = response_to(BrokerAway("reading a batch: the broker cannot be reached"))
    assert body["error"]["message"] == "the broker cannot be reached: try again"
    message = translate_error(BrokerAway("sending"), is_send=True).problem.message
    assert message.endswith("the task may have been accepted: send it again with once=…")
