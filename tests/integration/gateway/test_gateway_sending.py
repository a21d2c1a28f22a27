"""Sending one task over HTTP: taken, known already, refused; and that nothing sent is repeated."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.producer.client import Client
from millpond.producer.gateway import send_batcher
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.routes.send import SendEndpoint
from millpond.producer.gateway.state import State
from millpond.producer.gateway.tokens import ANONYMOUS
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.harness.gateway_process import GatewayProcess


def bound(broker: Store, queue: str, messages: int, overflow: str) -> None:
    limits.change_limits(broker, queue, bound=messages, overflow=overflow)


def test_a_task_is_taken_and_a_second_of_its_name_is_the_first(
    gateway: GatewayProcess, broker: Store, queue: str
) -> None:
    """A new task is 202; a duplicate is 200 with the first id, and nothing is sent."""
    first = gateway.send(query=f"?once=order-42&queue={queue}")
    again = gateway.send(query=f"?once=order-42&queue={queue}")
    assert (first.status, first.json["duplicate"]) == (202, False)
    assert (again.status, again.json["duplicate"]) == (200, True)
    assert again.json["id"] == first.json["id"]
    assert depth.read_depth(broker, queue).ready == 1


@pytest.mark.parametrize("overflow", ["block", "reject"])
def test_a_full_queue_says_when_to_come_back(
    gateway: GatewayProcess, broker: Store, queue: str, overflow: str
) -> None:
    """A full queue is 429 at once with `Retry-After`, whether its producers wait or not; `shed` gets in."""
    bound(broker, queue, 2, overflow)
    answers = [gateway.send(query=f"?queue={queue}") for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 429]
    fault = answers[2].json["error"]
    assert int(answers[2].headers["Retry-After"]) == fault["retry_after"] >= 1
    assert (fault["code"], fault["queue"], fault["bound"]) == ("queue_full", queue, 2)
    assert gateway.send(query=f"?queue={queue}&overflow=shed").status == 202
    assert depth.read_depth(broker, queue).dead == 1


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("/send/squares.square", {"n": "many"}, "bad_contract", "n"),
        ("/send/squares.square", {"n": 1, "m": 2}, "bad_contract", "m"),
        ("/send/squares.square?priority=10", {"n": 1}, "bad_contract", "priority"),
        ("/send/squares.square?colour=red", {"n": 1}, "bad_contract", "colour"),
        ("/send/squares.square?queue=nowhere", {"n": 1}, "unknown_queue", "queue"),
        ("/send/email.send", {"sender": "a@example.org", "to": "b@example.org"}, "bad_contract", "body"),
        ("/send/squares.square", "[1", "bad_contract", "body"),
        ("/send/squares.square", [1], "bad_contract", "body"),
        ("/send/squares.square?for_seconds=5", {"n": 1}, "bad_contract", "query"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    gateway: GatewayProcess, path: str, body: Any, code: str, field: str
) -> None:
    """A value that does not fit a contract or an option is 422 and names the field, or the whole."""
    answer = gateway.ask("POST", path, body)
    assert (answer.status, answer.json["error"]["code"]) == (422, code)
    assert [fault["field"] for fault in answer.json["error"]["fields"]] == [field]
    assert " it: " not in answer.json["error"]["message"]


def test_each_refusal_has_its_status(gateway: GatewayProcess) -> None:
    """An unknown kind, another media type or coding, too long a body, a closed and a missing batch differ."""
    batch = gateway.ask("POST", "/batches").json["id"]
    gateway.ask("POST", f"/batches/{batch}/close")
    unknown = "00000000-0000-4000-8000-000000000000"
    found = {
        "kind": gateway.ask("POST", "/send/no.such", {}).status,
        "media": gateway.ask("POST", "/send/squares.square", "n=7", media="text/plain").status,
        "coding": gateway.ask("POST", "/send/squares.square", {"n": 1}, content_encoding="gzip").status,
        "long": gateway.ask("POST", "/send/squares.square", {"n": 1, "x": "x" * 30_000}).status,
        "closed": gateway.send(query=f"?batch={batch}").status,
        "batch": gateway.ask("GET", f"/batches/{unknown}").status,
        "method": gateway.ask("DELETE", "/kinds").status,
    }
    sent = {"kind": 404, "media": 415, "coding": 415, "long": 413, "closed": 409}
    assert found == sent | {"batch": 404, "method": 405}


def test_a_long_body_of_no_announced_length_is_refused(gateway: GatewayProcess) -> None:
    """A body in chunks is cut off where it gets too long."""
    chunks: Any = (b"[" * 10_000 for _ in range(10))
    connection = gateway.connect()
    connection.request(
        "POST", "/send/squares.square", chunks, {"content-type": "application/json"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_nothing_that_was_sent_is_repeated(gateway: GatewayProcess) -> None:
    """A mail's text and a password are in no answer about them, and not in the log."""
    secret = "correct-horse-battery"
    mail = {"sender": "a@example.org", "to": "nobody", "text": secret, "html": [secret], "template": secret}
    answers = [
        gateway.ask("POST", "/send/email.send", mail),
        gateway.ask("POST", "/send/files.pdf_text", {"source": "/a", "target": "/b", "password": [secret]}),
        gateway.ask("POST", "/send/email.send", f'{{"text": "{secret}" '),
        gateway.ask(
            "POST", "/send", f'{{"kind": "email.send", "task": "{secret}"}}', media="application/x-ndjson"
        ),
    ]
    assert [answer.status for answer in answers] == [422, 422, 422, 200]
    assert not [answer.text for answer in answers if secret in answer.text]
    assert secret not in gateway.log.read_text()


def test_the_schema_is_made_of_the_contracts(gateway: GatewayProcess) -> None:
    """OpenAPI has a route for each kind, its contract and an example that is taken as it is."""
    schema = gateway.ask("GET", "/openapi.json").json
    for kind in gateway.ask("GET", "/kinds").json:
        operation = schema["paths"][f"/send/{kind['kind']}"]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        assert gateway.ask("POST", f"/send/{kind['kind']}", body["examples"][0]).status == 202
        assert (
            schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]["additionalProperties"] is False
        )


def request_for(query: str) -> dict[str, Any]:
    """Return the scope of a request to an endpoint, by a sender without a token."""
    return {
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json")],
        "state": {"principal": ANONYMOUS},
    }


async def receive_square() -> Message:
    """Return the whole body of a request."""
    return {"type": "http.request", "body": b'{"n": 3}'}


def test_a_tracked_task_that_an_overloaded_gateway_refused_can_be_sent_again(
    gateway_url: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 leaves no record of the task behind, so the same id is not in use."""
    settings = Settings(broker_url=gateway_url)
    scope = request_for(f"track=true&id={queue}&queue={queue}")

    async def send_twice() -> None:
        state = State(settings, Client(settings=settings))
        endpoint = SendEndpoint(state, "squares.square", Square)
        with monkeypatch.context() as overload:
            overload.setattr(send_batcher, "MOST_PENDING", 0)
            with pytest.raises(ApiError, match="overloaded"):
                await endpoint.respond(scope, receive_square)
        assert (await endpoint.respond(scope, receive_square)).status_code == 202
        state.close()

    asyncio.run(send_twice())


def test_names_of_queues_that_do_not_exist_take_no_memory(gateway_url: str) -> None:
    """A client that names ever new queues is refused, and the gateway keeps none of the names."""
    settings = Settings(broker_url=gateway_url)

    async def send_to_unknown_queues() -> None:
        state = State(settings, Client(settings=settings))
        endpoint = SendEndpoint(state, "squares.square", Square)
        for number in range(3):
            with pytest.raises(ApiError, match="unknown_queue"):
                await endpoint.respond(request_for(f"queue=never-{number}"), receive_square)
        assert not state.client.queues.known
        state.close()

    asyncio.run(send_to_unknown_queues())
