"""Trace tasks with OpenTelemetry: spans of sending, waiting, running and settling.

OpenTelemetry is imported only if the setting `traces_endpoint` names a collector, or if the program that uses
the client has set OpenTelemetry up itself. The trace is in the message's header `traceparent` (W3C Trace
Context), which OpenTelemetry's own instrumentation of Celery reads and writes too.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.extras import install_command

#: The interval at which spans are sent, in ms.
_GATHERED_MS = 1_000

_chosen: dict[str, str] = {}

#: Nothing is traced in a process that has not imported this.
SDK = "opentelemetry.sdk.trace"


def configure(endpoint: str | None, *, service: str) -> None:
    """Set the OTLP/HTTP collector and the service name of this process's spans.

    Only the first endpoint counts. An endpoint of None is ignored.

    Raises `SettingsError` if OpenTelemetry is not installed. It is imported here, so that no fork can happen
    while a thread is importing it.
    """
    if endpoint is None or _chosen:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export
        import opentelemetry.trace.propagation.tracecontext  # noqa: F401
    except ImportError:
        raise SettingsError(
            f"traces_endpoint is set and OpenTelemetry is not installed: {install_command(['traces'])}"
        ) from None
    _chosen.update(endpoint=endpoint, service=service)


def tracer() -> Any:
    """Return the tracer of this process. Return None if tracing is off."""
    if _chosen:
        return _cached_tracer(_own_provider(os.getpid()))
    api = sys.modules.get("opentelemetry.trace")
    if api is None or "opentelemetry.sdk.trace" not in sys.modules:
        return None
    return _cached_tracer(api.get_tracer_provider())


@lru_cache(maxsize=1)
def _cached_tracer(provider: Any) -> Any:
    """Return the tracer of a provider, cached: OpenTelemetry would make a new one at each call."""
    return provider.get_tracer("millpond")


@lru_cache(maxsize=1)
def _own_provider(_process: int) -> Any:
    """Return the provider of this process; a forked child makes its own, because it has no threads."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": _chosen["service"]}))
    exporter = OTLPSpanExporter(endpoint=_chosen["endpoint"])
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_GATHERED_MS))
    return provider


def flush() -> None:
    """Send the buffered spans. Call it before a process ends without running its exit handlers."""
    if _chosen:
        _own_provider(os.getpid()).force_flush(2_000)


def begin_span(name: str, kind: str, parent: str | None = None, **more: Any) -> Any:
    """Begin a span: `kind` is `PRODUCER`, `CONSUMER` or `INTERNAL`. Return None if tracing is off.

    `parent` is a traceparent. Without one, the current span is the parent. `more` are further arguments of
    `Tracer.start_span`.
    """
    own_tracer = tracer()
    if own_tracer is None:
        return None
    from opentelemetry.trace import SpanKind

    return own_tracer.start_span(name, context=_parent_context(parent), kind=SpanKind[kind], **more)


def traceparent(span: Any = None) -> str | None:
    """Return the traceparent of a span, or of the current one. Return None if tracing is off."""
    if span is None:
        if tracer() is None:
            return None
        from opentelemetry.trace import get_current_span

        span = get_current_span()
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


@contextmanager
def make_current(span: Any) -> Iterator[None]:
    """Make a span the current one during a block, and end it after the block."""
    from opentelemetry.trace import use_span

    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield


def mark_failed(span: Any, error: str) -> None:
    """Mark a span as failed. `error` is free of secrets."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, error))


def links_to(header: Any) -> list[Any]:
    """Return the links of a span to the span of this traceparent."""
    if not isinstance(header, str):
        return []
    from opentelemetry.trace import Link, get_current_span

    context = get_current_span(_parent_context(header)).get_span_context()
    return [Link(context, {"millpond.link": "retried"})] if context.is_valid else []


def span_attributes(
    kind: str, *, id: str, queue: str, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the attributes of a task's span, named by OpenTelemetry's conventions for messaging."""
    common = {
        "messaging.system": "millpond",
        "messaging.destination.name": queue,
        "messaging.message.id": id,
        "millpond.kind": kind,
    }
    batch = (own or {}).get("batch")
    return {**common, **({"millpond.batch": batch} if isinstance(batch, str) else {})}


def _parent_context(header: str | None) -> Any:
    if header is None:
        return None
    return _trace_propagator().extract({"traceparent": header})


@cache
def _trace_propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
