"""A trace follows a task from its producer through the queue, the body and its settlement."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, depth
from millpond.producer.client import Client
from millpond.tasks.process import spans
from millpond.tasks.process.spans import flush
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.http_server import LocalServer, QuietHandler, run_http_server
from tests.harness.one_worker import settings_for, workers
from tests.harness.run_to_end import run_to_end


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Run a collector on loopback; give its endpoint, and the spans that it gets."""
    spans: list[Any] = []

    class Take(QuietHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.answer(200, b"")

    with run_http_server(LocalServer(Take)) as server:
        yield f"{server.url}v1/traces", spans


@pytest.fixture
def untraced_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Switch tracing off for the tests that follow."""
    monkeypatch.setattr(spans, "_collector", {})
    yield
    if spans._collector:
        spans._own_provider().shutdown()
        spans._own_provider.forget()


@pytest.mark.parametrize("executor", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_a_retried_task_is_one_trace_with_its_runs_linked(
    executor: str,
    url: str,
    plain_store: Store,
    collector: tuple[str, list[Any]],
    untraced_after: None,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Send, wait, run, settle, and once more for the retry: one trace, the second run linked to the first."""
    endpoint, spans = collector
    settings = settings_for(
        url, pool={"executor": executor}, kinds=("secret_kinds",), traces_endpoint=endpoint
    )
    with workers(settings, tmp_path) as (worker,):
        sent = _send(url, settings)
        eventually(lambda: list(dead_letters.read_dead_letters(plain_store, "default")), 30)
        eventually(lambda: depth.read_depth(plain_store, "default").in_flight == 0)
        worker.stop()
    flush()
    names = eventually(lambda: len(spans) >= 7 and [span.name for span in spans])
    assert sorted(names) == sorted(
        ["send default", *["wait default", "run test.blurt", "settle default"] * 2]
    ), names
    assert len({span.trace_id for span in spans}) == 1
    (send,) = (span for span in spans if span.name == "send default")
    assert all(span.parent_span_id == send.span_id for span in spans if span is not send)
    first, second = sorted(
        (s for s in spans if s.name == "run test.blurt"), key=lambda s: s.start_time_unix_nano
    )
    assert [link.span_id for link in second.links] == [first.span_id]
    assert second.status.code == 2
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in spans)
    ids = {a.value.string_value for s in spans for a in s.attributes if a.key == "messaging.message.id"}
    assert ids == {sent}
    assert not [span for span in spans if "not-to-be-seen" in str(span)]


def _send(url: str, settings: Settings) -> str:
    import secret_kinds

    with Client(url, settings=settings) as client:
        return client.send(secret_kinds.Blurt(how="retry", secret="not-to-be-seen in any span")).id


def test_nothing_is_traced_unless_asked_for() -> None:
    """Without an endpoint and without OpenTelemetry set up, a worker has no tracer and imports none of it."""
    code = (
        "import sys; from millpond.worker.app import make_app; from millpond.tasks.settings import Settings; "
        "make_app(Settings(broker_url='redis://localhost')); from millpond.tasks.process import spans; "
        "assert spans.tracer() is spans.begin_span('send', 'PRODUCER') is spans.traceparent() is None; "
        "own = ('opentelemetry.sdk.trace', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(own)])"
    )
    done = run_to_end([sys.executable, "-c", code])
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
