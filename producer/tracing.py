"""Built-in middleware that traces sending: a span of each task, until the broker has answered."""

import sys
from collections.abc import Sequence
from typing import Any

from millpond.tasks.middleware import Middleware, Sending
from millpond.tasks.process import tracing


class Tracing(Middleware):
    """Begins the span that the runs of a task continue."""

    def __init__(self) -> None:
        self._spans: dict[str, Any] = {}

    def on_sending(self, sending: Sending) -> None:
        """Begin the span of a task; its message carries the span's name."""
        span = tracing.begin(f"send {sending.queue}", "PRODUCER", sending.traceparent)
        if span is None:
            return
        own = {"batch": sending.batch}
        span.set_attributes(tracing.attributes(sending.job.kind, id=sending.id, queue=sending.queue, own=own))
        sending.traceparent = tracing.traceparent(span)
        self._spans[sending.id] = span

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """End the span of a task, as failed if the task was refused."""
        span = self._spans.pop(sending.id, None)
        if span is None:
            return
        if error is not None:
            tracing.failed(span, type(error).__name__)
        span.end()


_TRACING = Tracing()


def traced(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """Return middleware, with that of tracing first where this process has OpenTelemetry."""
    return (_TRACING, *middleware) if tracing.SDK in sys.modules else tuple(middleware)
