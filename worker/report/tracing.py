"""Built-in middleware that traces a task in its slot: its wait, its run and its settlement.

The spans lie under the span of the sender, which the message names.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, signals

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome
from millpond.tasks.contract import kinds
from millpond.tasks.execute import error_line, outcomes_of_errors
from millpond.tasks.middleware import Middleware
from millpond.tasks.process import tracing
from millpond.tasks.process.tracing import SDK as SDK
from millpond.tasks.redaction import hides, scrubbed, secrets_in
from millpond.tasks.settings import Settings

_NS = 1_000_000


class Tracing(Middleware):
    """Traces tasks; used only where this process has OpenTelemetry."""

    def around_executing(self, job: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        """Trace a run; a retry will be linked to it by `context.state`."""
        span = _begin_run(context.delivery)
        if span is None:
            return call_next(job, context)
        context.state["traceparent"] = tracing.traceparent(span)
        with tracing.current(span):
            try:
                value = call_next(job, context)
            except BaseException as error:
                if text := _failure(error, context.message):
                    tracing.failed(span, text)
                raise
            if text := getattr(value, "error", None) if isinstance(value, Outcome) else None:
                tracing.failed(span, text)
            return value

    def on_outcome(self, delivery: Delivery, outcome: Outcome, seconds: float | None) -> None:
        """Begin the span of a settlement; it ends when the broker has confirmed it."""
        del outcome, seconds
        if tracing.tracer() is None:
            return
        message, queue = delivery.message, delivery.queue
        told = tracing.attributes(message.kind, id=message.id, queue=queue)
        span = tracing.begin(f"settle {queue}", "INTERNAL", message.traceparent, attributes=told)
        delivery.on_settled = span.end


def _begin_run(delivery: Delivery) -> Any:
    """Trace the wait of a task until now, and begin the span of its run; None if tracing is off."""
    if tracing.tracer() is None:
        return None
    message = delivery.message
    parent, queue = message.traceparent, delivery.queue
    told = tracing.attributes(message.kind, id=message.id, queue=queue, own=message.own)
    now_ns, since_ms = time.time_ns(), delivery.ready_ms
    if since_ms is not None:
        began = min(now_ns, (since_ms - delivery.clock_ms) * _NS)
        waited = tracing.begin(f"wait {queue}", "INTERNAL", parent, attributes=told, start_time=began)
        waited.end(now_ns)
    told |= {"millpond.retries": message.retries, "millpond.deliveries": 1 + delivery.deliveries}
    links = tracing.link(message.own.get("link"))
    return tracing.begin(f"run {message.kind}", "CONSUMER", parent, attributes=told, links=links)


def _failure(error: BaseException, message: Message) -> str | None:
    """Return an error as a span shows it, without secrets; None for one that means a success."""
    for known, outcome_of in outcomes_of_errors.items():
        if isinstance(error, known):
            return getattr(outcome_of(error), "error", None)
    contract = kinds().get(message.kind)
    if contract is None or not hides(contract):
        return error_line(error)
    args, kwargs, _embed = message.arguments
    return error_line(error, partial(scrubbed, secrets=secrets_in(contract, args, kwargs)))


#: The one of this process.
TRACING = Tracing()


def install(app: Celery, settings: Settings) -> None:
    """Trace the tasks of this application's workers, if the settings say where to."""
    tracing.configure(settings.traces_endpoint, service="millpond-worker")
    if settings.traces_endpoint:

        def flush(**_: Any) -> None:
            tracing.flush()

        app.flush_spans = flush  # signals keep weak references
        signals.worker_process_shutdown.connect(flush)
        signals.worker_shutdown.connect(flush)
