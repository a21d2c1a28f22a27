"""A task that is sent over HTTP belongs to the trace of the request."""

import json

import pytest

from millpond.broker.connection import Store
from millpond.producer.gateway.headers import read_traceparent
from tests.harness.gateway_process import NDJSON, GatewayProcess, ndjson_body

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_task_continues_the_trace_of_its_request(
    gateway: GatewayProcess, broker: Store, queue: str
) -> None:
    """The header of a request, for one task or a stream, is that of each task; else there is none."""
    asked = {"traceparent": TRACE}
    assert gateway.ask("POST", f"/send/squares.square?queue={queue}", {"n": 1}, **asked).status == 202
    lines = ndjson_body({"kind": "squares.square", "task": {"n": 2}, "queue": queue})
    assert gateway.ask("POST", "/send", lines, media=NDJSON, **asked).lines[0]["queue"] == queue
    assert gateway.send(query=f"?queue={queue}").status == 202
    sent = [json.loads(message)["headers"] for message in broker.client.lrange(queue, 0, -1)]
    assert [headers.get("traceparent") for headers in reversed(sent)] == [TRACE, TRACE, None]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (TRACE, TRACE),
        (f"cc{TRACE[2:]}-what-will-be", TRACE),
        (f"ff{TRACE[2:]}", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"{TRACE}x", None),
        ("<script>", None),
    ],
)
def test_a_header_that_names_no_trace_is_left_out(given: str, kept: str | None) -> None:
    """Only a trace that is valid by W3C is continued, a later version as this one."""
    assert read_traceparent([(b"host", b"here"), (b"traceparent", given.encode())]) == kept
