"""The gateway's own metrics."""

from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from millpond.tasks.settings import Gateway, GatewayToken, Settings
from tests.harness.gateway_process import NDJSON, GatewayProcess, ndjson_body, run_gateway

SINGLE = {"route": "/send/squares.square", "method": "POST"}


def figures(gateway: GatewayProcess) -> Callable[..., float]:
    """Return `value(name, **labels)` of its metrics now; 0 where one is missing."""
    answer = gateway.ask("GET", "/metrics")
    assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    samples = [each for family in text_string_to_metric_families(answer.text) for each in family.samples]

    def value(name: str, **labels: str) -> float:
        found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
        return float(sum(found))

    return value


def test_requests_and_tasks_of_streams_are_counted(gateway: GatewayProcess, queue: str) -> None:
    """Requests are counted by route and answer, with their times; an unknown path is `other`, unnamed."""
    before = figures(gateway)
    assert gateway.send(query=f"?queue={queue}").status == 202
    assert gateway.send(query="?priority=none").status == 422
    line: dict[str, Any] = {"kind": "squares.square", "task": {"n": 2}, "queue": queue}
    assert (
        gateway.ask("POST", "/send", ndjson_body(line, {**line, "kind": "none"}), media=NDJSON).status == 200
    )
    assert gateway.ask("GET", f"/nowhere/{queue}").status == 404
    after = figures(gateway)

    def added(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert added("millpond_gateway_requests_total", **SINGLE, status="202") == 1
    assert added("millpond_gateway_requests_total", **SINGLE, status="422") == 1
    assert added("millpond_gateway_request_seconds_count", route="/send/squares.square") == 2
    assert added("millpond_gateway_request_seconds_bucket", route="/send/squares.square", le="+Inf") == 2
    assert added("millpond_gateway_stream_tasks_total", outcome="accepted") == 1
    assert added("millpond_gateway_stream_tasks_total", outcome="refused") == 1
    assert added("millpond_gateway_requests_total", route="other", status="404") == 1
    assert after("millpond_gateway_streams", of="tasks") == 0


def test_the_figures_are_for_those_with_a_token(gateway_url: str) -> None:
    """Where there are access tokens, a request without one gets no metrics."""
    token = GatewayToken(name="ann", hash=f"sha256:{'0' * 64}")
    with run_gateway(Settings(broker_url=gateway_url, gateway=Gateway(tokens=(token,)))) as closed:
        assert closed.ask("GET", "/metrics").status == 401
