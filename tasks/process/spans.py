"""Make spans with OpenTelemetry, for the middleware of `tasks/tracing.py`.

OpenTelemetry is imported only if the setting `traces_endpoint` names a collector, or if the program that uses
the client has set OpenTelemetry up itself. The trace is in the message's header `traceparent` (W3C Trace
Context), which OpenTelemetry's own instrumentation of Celery reads and writes too.
"""

import sys
from contextlib import AbstractContextManager
from functools import cache, lru_cache
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.extras import install_command
from millpond.tasks.process.one_per_process import one_per_process

#: The interval at which buffered spans are sent, ms.
_SEND_INTERVAL_MS = 1_000

#: The `endpoint` and `service` of `configure`; empty without an endpoint.
_collector: dict[str, str] = {}

#: The module without which a process cannot trace. Nothing is traced until it is imported.
SDK = "opentelemetry.sdk.trace"


def configure(endpoint: str | None, *, service: str) -> None:
    """Set the URL of the OTLP/HTTP collector, and the service name of this process's spans.

    An endpoint of None is ignored, and so is a second one. OpenTelemetry is imported here, so that no fork
    happens while another thread imports it. Raises `SettingsError` if it is not installed.
    """
    if endpoint is None or _collector:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export
        import opentelemetry.trace.propagation.tracecontext  # noqa: F401
    except ImportError:
        raise SettingsError(
            f"traces_endpoint is set and OpenTelemetry is not installed: {install_command(['traces'])}"
        ) from None
    _collector.update(endpoint=endpoint, service=service)


def tracer() -> Any:
    """Return the tracer of this process: of the configured collector, or else of the program's own provider.

    Return None if tracing is off.
    """
    if _collector:
        return _cached_tracer(_own_provider())
    api = sys.modules.get("opentelemetry.trace")
    if api is None or SDK not in sys.modules:
        return None
    return _cached_tracer(api.get_tracer_provider())


@lru_cache(maxsize=1)
def _cached_tracer(provider: Any) -> Any:
    """Return the cached tracer of a provider. OpenTelemetry makes a new one at each call."""
    return provider.get_tracer("millpond")


@one_per_process
def _own_provider() -> Any:
    """Return the provider of this process.

    A forked child needs a new one: the thread that sends spans does not run in it.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": _collector["service"]}))
    exporter = OTLPSpanExporter(endpoint=_collector["endpoint"])
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_INTERVAL_MS))
    return provider


def flush() -> None:
    """Send the buffered spans, for at most 2 s. Needed before a process ends without its exit handlers."""
    if _collector:
        _own_provider().force_flush(2_000)


def begin_span(name: str, span_kind: str, parent: str | None = None, **options: Any) -> Any:
    """Begin a span and return it. Return None if tracing is off.

    `span_kind` is `PRODUCER`, `CONSUMER` or `INTERNAL`. `parent` is a traceparent. Without one, the current
    span is the parent. `options` are further arguments of `Tracer.start_span`.
    """
    own_tracer = tracer()
    if own_tracer is None:
        return None
    from opentelemetry.trace import SpanKind

    return own_tracer.start_span(name, context=_parent_context(parent), kind=SpanKind[span_kind], **options)


def traceparent(span: Any = None) -> str | None:
    """Return the traceparent of a span, by default the current one. Return None if tracing is off."""
    if span is None:
        if tracer() is None:
            return None
        from opentelemetry.trace import get_current_span

        span = get_current_span()
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def make_current(span: Any) -> AbstractContextManager[Any]:
    """Return a context manager that makes a span the current one during a block, and ends it after that."""
    from opentelemetry.trace import use_span

    return use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False)


def mark_failed(span: Any, error: str) -> None:
    """Set the status of a span to failed. `error` must be free of secrets."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, error))


def retry_links(previous: Any) -> list[Any]:
    """Return the link of a run's span to the span of the run before it; no link if there was none.

    `previous` is the traceparent of the run before, as a message has it: any value of JSON.
    """
    if not isinstance(previous, str):
        return []
    from opentelemetry.trace import Link, get_current_span

    context = get_current_span(_parent_context(previous)).get_span_context()
    return [Link(context, {"millpond.link": "retried"})] if context.is_valid else []


def span_attributes(kind: str, *, task_id: str, queue: str, batch: str | None = None) -> dict[str, Any]:
    """Return the attributes of a task's span, named by OpenTelemetry's conventions for messaging."""
    attributes = {
        "messaging.system": "millpond",
        "messaging.destination.name": queue,
        "messaging.message.id": task_id,
        "millpond.kind": kind,
    }
    return attributes | ({} if batch is None else {"millpond.batch": batch})


def _parent_context(traceparent: str | None) -> Any:
    """Return OpenTelemetry's context of a traceparent. Return None, which means the current one, for None."""
    return None if traceparent is None else _trace_propagator().extract({"traceparent": traceparent})


@cache
def _trace_propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
