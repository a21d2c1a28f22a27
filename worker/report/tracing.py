"""Trace a task in its slot: its wait and its run, under the span of its sender."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from sys import modules as modules
from typing import Any

from celery import Celery, signals

from millpond.broker.delivery import Delivery
from millpond.broker.outcomes import Outcome
from millpond.tasks.process import tracing
from millpond.tasks.settings import Settings

_NS = 1_000_000

SDK = tracing.SDK


class Run:
    """The run of one task, as far as its trace goes; `end` is told how it ended."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, outcome: Outcome) -> None:
        """Mark the run as failed if it did, or asked for another."""
        error = getattr(outcome, "error", None)
        if self._span is not None and error:
            tracing.failed(self._span, error)


#: A run that is not traced.
_UNTRACED = nullcontext(Run(None))


def running(delivery: Delivery) -> AbstractContextManager[Run]:
    """Trace the run of a task for the length of a block."""
    return _UNTRACED if tracing.tracer() is None else _traced(delivery)


@contextmanager
def _traced(delivery: Delivery) -> Iterator[Run]:
    message = delivery.message
    parent, queue = message.traceparent, delivery.queue
    told = tracing.attributes(message.kind, id=message.id, queue=queue, own=message.own)
    now_ns, since_ms = time.time_ns(), delivery.ready_ms
    if since_ms is not None:
        began = min(now_ns, (since_ms - delivery.clock_ms) * _NS)
        waited = tracing.begin(f"wait {queue}", "INTERNAL", parent, attributes=told, start_time=began)
        waited.end(now_ns)
    told |= {"millpond.retries": message.retries, "millpond.deliveries": 1 + delivery.deliveries}
    span = tracing.begin(
        f"run {message.kind}",
        "CONSUMER",
        parent,
        attributes=told,
        links=tracing.link(message.own.get("link")),
    )
    with tracing.current(span):
        yield Run(span)


def trace_settling(delivery: Delivery) -> None:
    """Begin the span of a settlement, which ends when the broker has confirmed it, if anything is traced."""
    if tracing.tracer() is None:
        return
    message, queue = delivery.message, delivery.queue
    told = tracing.attributes(message.kind, id=message.id, queue=queue)
    span = tracing.begin(f"settle {queue}", "INTERNAL", message.traceparent, attributes=told)
    delivery.on_settled = span.end


def install(app: Celery, settings: Settings) -> None:
    """Trace the tasks of this application's workers, if the settings say where to."""
    tracing.configure(settings.traces_endpoint, service="millpond-worker")
    if settings.traces_endpoint:

        def flush(**_: Any) -> None:
            tracing.flush()

        app.flush_spans = flush  # signals keep weak references
        signals.worker_process_shutdown.connect(flush)
        signals.worker_shutdown.connect(flush)
