"""How a gateway ends, and its answers while its broker is away."""

import json
import signal
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from millpond.broker.connection import connect
from millpond.broker.inspect import depth
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.gateway_process import NDJSON, GatewayProcess, chunk, ndjson_body, run_gateway, square

DRAIN_SECONDS = 4


@pytest.fixture(scope="module")
def gateway(module_url: str) -> Iterator[GatewayProcess]:
    """Run a gateway that has four seconds to end."""
    with run_gateway(Settings(broker_url=module_url, drain_seconds=DRAIN_SECONDS)) as started:
        yield started


def opened(gateway: GatewayProcess) -> tuple[HTTPConnection, HTTPResponse]:
    """Open a stream, send one task over it, and read the task's outcome."""
    connection = gateway.begin_stream()
    connection.send(chunk(ndjson_body(square(1))))
    answer = connection.getresponse()
    assert json.loads(answer.readline())["line"] == 1
    return connection, answer


def test_it_finishes_what_is_under_way_and_is_gone_by_the_deadline(
    gateway: GatewayProcess, module_url: str, eventually: Eventually
) -> None:
    """After SIGTERM no new request gets in; a stream is finished, an endless one is told to end; exit 0."""
    batch = gateway.ask("POST", "/batches").json["id"]
    reader = gateway.connect()
    reader.request("GET", f"/batches/{batch}/results")
    events = reader.getresponse()
    finishing, endless = opened(gateway), opened(gateway)
    gateway.process.send_signal(signal.SIGTERM)

    eventually(lambda: _refuses(gateway))
    assert b"complete" not in events.read()  # it can be resumed elsewhere, so it ends at once
    finishing[0].send(chunk(ndjson_body(square(2))))
    assert json.loads(finishing[1].readline())["line"] == 2
    finishing[0].send(chunk(""))
    assert json.loads(finishing[1].readline())["summary"]["aborted"] is None
    assert gateway.process.poll() is None
    assert json.loads(endless[1].readline())["summary"] == {
        "accepted": 1, "duplicates": 0, "refused": 0, "aborted": "stopping",
    }  # fmt: skip
    assert gateway.process.wait(DRAIN_SECONDS + 10) == 0
    store = connect(module_url)
    assert depth.read_depth(store, "default").ready == 3
    store.close()
    assert gateway.log.read_text() == ""
    for each in (events, finishing[1], endless[1], reader, finishing[0], endless[0]):
        each.close()


def test_a_broker_that_is_away_is_said_to_be() -> None:
    """Without a broker a send is 503 with `Retry-After`, so is readiness; the gateway lives on."""
    with run_gateway(Settings(broker_url="redis://127.0.0.1:1")) as alone:
        answer = alone.send()
        assert (answer.status, answer.json["error"]["code"]) == (503, "broker_away")
        assert int(answer.headers["Retry-After"]) >= 1
        many = alone.ask("POST", "/send", ndjson_body(square(1), square(2)), media=NDJSON)
        assert [line["status"] for line in many.lines[:-1]] == [503, 503]
        assert many.lines[-1]["summary"]["aborted"] == "broker_away"
        assert alone.ask("POST", "/batches").status == 503
        assert alone.ask("GET", "/health/live").json == {"status": "live"}
        ready = alone.ask("GET", "/health/ready")
        assert (ready.status, ready.json) == (503, {"status": "broker_away"})
        assert alone.stop() == 0


def _refuses(gateway: GatewayProcess) -> bool:
    connection = gateway.connect()
    try:
        connection.connect()
    except ConnectionRefusedError:
        return True
    finally:
        connection.close()
    return False
