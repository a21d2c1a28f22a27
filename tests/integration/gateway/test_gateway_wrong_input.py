"""Wrong input to the gateway: each answer names the fault, its place, and the form that would be right."""

from typing import Any

import pytest

from tests.harness.gateway_process import NDJSON, GatewayProcess, ndjson_body, square

SQUARE, NOBODY = "/send/squares.square", "11111111-1111-4111-8111-111111111111"
NAME = "must have 1 to 200 printable ASCII characters"
ID = "must have 1 to 200 of these: letters, digits, . _ : ~ and -, and not dots alone"
BATCH = "must be the id of a batch, as POST /batches returns it"


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        (SQUARE, "", "body", "the body is empty"),
        (SQUARE, '{"n": 1', "body", "the body is not JSON at column 8"),
        (SQUARE, '{\n"n": 1,}', "body", "the body is not JSON at line 2, column 8"),
        (SQUARE, b'{"n": "\xff"}', "body", "the body is not UTF-8"),
        (SQUARE, '{"n": ' + "7" * 5_000 + "}", "body", "the body has a whole number of too many digits"),
        (SQUARE, "null", "body", "must be a table of names and values"),
        (f"{SQUARE}?once=", {"n": 1}, "once", NAME),
        (f"{SQUARE}?once=%C3%A9", {"n": 1}, "once", NAME),
        (f"{SQUARE}?queue={'q' * 201}", {"n": 1}, "queue", NAME),
        (f"{SQUARE}?id=..", {"n": 1}, "id", ID),
        (f"{SQUARE}?batch=mine", {"n": 1}, "batch", BATCH),
        (f"{SQUARE}?at=1999-01-01T00:00:00Z", {"n": 1}, "at", "must lie between the years 2000 and 2200"),
        ("/send/files.checksum", {"source": ""}, "source", "must not be empty"),
        ("/batches/mine/close", None, "id", BATCH),
        ("/batches", {"description": "x"}, "body", "is not read: write options into the query"),
    ],
)
def test_an_answer_tells_the_fault_in_words(
    gateway: GatewayProcess, path: str, body: Any, field: str, message: str
) -> None:
    """No answer is a pattern, and the place in a text that is no JSON is told without the text."""
    answer = gateway.ask("POST", path, body)
    assert answer.status == 422, answer.text
    (fault,) = answer.json["error"]["fields"]
    assert (fault["field"], fault["message"]) == (field, message)


def test_the_message_has_a_subject(gateway: GatewayProcess) -> None:
    """Also where the body, or a line, is of another type as a whole."""
    message = gateway.ask("POST", SQUARE, "null").json["error"]["message"]
    assert message == "this request is not valid: the body must be a table of names and values"
    *outcomes, _ = gateway.ask("POST", "/send", "7\n{}]\n", media=NDJSON).lines
    assert [each["error"]["message"] for each in outcomes] == [
        "line 1 is not valid: the line must be a table of names and values",
        "line 2 is not valid: the line is not JSON at column 3",
    ]


def test_the_id_of_an_event_is_told_in_words(gateway: GatewayProcess) -> None:
    """A header is named as a field is."""
    answer = gateway.ask("GET", f"/batches/{NOBODY}/results", last_event_id="abc")
    assert answer.json["error"]["fields"] == [
        {"field": "last-event-id", "message": "must be the id of an event of this stream"}
    ]


def test_one_task_to_the_route_of_many_is_told_its_own(gateway: GatewayProcess) -> None:
    """The route of a single task is in the answer."""
    answer = gateway.ask("POST", "/send", {"n": 1})
    assert answer.status == 415
    assert answer.json["error"]["message"].endswith("a single task goes to /send/KIND")


def test_the_plus_of_a_time_zone_may_be_a_space(gateway: GatewayProcess, queue: str) -> None:
    """As a query has it that was not encoded; a time without a zone is refused as before."""
    at = "2100-01-01T00:00:00"
    assert gateway.send(query=f"?queue={queue}&at={at}+02:00").status == 202
    assert gateway.send(query=f"?queue={queue}&at={at}%2B02:00").status == 202
    assert gateway.send(query=f"?queue={queue}&at=2100-01-01+02:00").status == 422
    assert gateway.send(query=f"?queue={queue}&at={at}").status == 422


def test_a_wait_is_a_duration(gateway: GatewayProcess, queue: str) -> None:
    """`wait_seconds` is written as all durations are."""
    body = ndjson_body(square(1, queue=queue))
    for text in ("0", "1.5", "2m30s"):
        assert gateway.ask("POST", f"/send?wait_seconds={text}", body, media=NDJSON).status == 200
    answer = gateway.ask("POST", "/send?wait_seconds=forever", body, media=NDJSON)
    assert answer.json["error"]["fields"][0]["message"].startswith("write a duration, as in ")


def test_an_empty_object_opens_a_batch(gateway: GatewayProcess) -> None:
    """Some clients send it with every POST."""
    assert gateway.ask("POST", "/batches", {}).status == 201
