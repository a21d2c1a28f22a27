"""Built-in middleware that makes the spans of a task: its sending, its wait, its run and its settlement.

The message has the traceparent of the sender's span, which is the parent of the worker's spans. This
middleware is not called in a process that has not imported OpenTelemetry.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.execute import error_line, outcomes_of_errors
from millpond.tasks.middleware import Hooks, Middleware, Sending
from millpond.tasks.process import spans
from millpond.tasks.redaction import scrub_secrets

_NS_PER_MS = 1_000_000


class Tracing(Middleware):
    """Makes the spans of tasks. `endpoint` is the collector's URL, or None for the program's own set-up.

    Raises `SettingsError` if there is an endpoint and OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str | None, *, service: str) -> None:
        spans.configure(endpoint, service=service)
        #: The span of each task that was sent and has no reply of the broker so far, by the task's id.
        self._sending: dict[str, Any] = {}

    def on_sending(self, sending: Sending) -> None:
        """Begin the span of a sending, and set its traceparent for the message."""
        span = spans.begin_span(f"send {sending.queue}", "PRODUCER", sending.traceparent)
        if span is None:
            return
        kind, queue = sending.job.kind, sending.queue
        span.set_attributes(spans.span_attributes(kind, task_id=sending.id, queue=queue, batch=sending.batch))
        sending.traceparent = spans.traceparent(span)
        self._sending[sending.id] = span

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """End the span of a sending, as failed if the task was refused."""
        span = self._sending.pop(sending.id, None)
        if span is None:
            return
        if error is not None:
            spans.mark_failed(span, type(error).__name__)
        span.end()

    def around_executing(self, job: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        """Run a task in a span. `context.state` has its traceparent, to which a retry links its own span."""
        span = _begin_run_span(context.delivery)
        if span is None:
            return call_next(job, context)
        context.state["traceparent"] = spans.traceparent(span)
        with spans.make_current(span):
            try:
                value = call_next(job, context)
            except BaseException as error:
                if text := _span_error(error, context.message):
                    spans.mark_failed(span, text)
                raise
            if text := getattr(value, "error", None) if isinstance(value, Outcome) else None:
                spans.mark_failed(span, text)
            return value

    def on_outcome(self, delivery: Delivery, outcome: Outcome, seconds: float | None) -> None:
        """Begin the span of a settlement. It ends when the broker has confirmed the settlement."""
        del outcome, seconds
        if spans.tracer() is None:
            return
        message, queue = delivery.message, delivery.queue
        attributes = spans.span_attributes(message.kind, task_id=message.id, queue=queue)
        span = spans.begin_span(f"settle {queue}", "INTERNAL", message.traceparent, attributes=attributes)
        delivery.on_settled = span.end

    def on_worker_stop(self) -> None:
        """Send the buffered spans."""
        spans.flush()


def _begin_run_span(delivery: Delivery) -> Any:
    """Make the span of the task's wait, which ends now, and begin and return the span of its run.

    Return None if tracing is off.
    """
    if spans.tracer() is None:
        return None
    message = delivery.message
    parent, queue = message.traceparent, delivery.queue
    attributes = spans.span_attributes(message.kind, task_id=message.id, queue=queue, batch=message.batch)
    now_ns = time.time_ns()
    if delivery.ready_ms is not None:
        ready_ns = min(now_ns, (delivery.ready_ms - delivery.clock_ms) * _NS_PER_MS)
        wait = spans.begin_span(
            f"wait {queue}", "INTERNAL", parent, attributes=attributes, start_time=ready_ns
        )
        wait.end(now_ns)
    attributes |= {"millpond.retries": message.retries, "millpond.deliveries": 1 + delivery.deliveries}
    links = spans.retry_links(message.own.get("link"))
    return spans.begin_span(f"run {message.kind}", "CONSUMER", parent, attributes=attributes, links=links)


def _span_error(error: BaseException, message: Message) -> str | None:
    """Return an error in one line without secrets. Return None if it is no failure, as Celery's `Ignore`."""
    for error_type, outcome_of in outcomes_of_errors.items():
        if isinstance(error, error_type):
            return getattr(outcome_of(error), "error", None)
    contract = contracts_by_kind().get(message.kind)
    return error_line(error, partial(scrub_secrets, contract=contract, message=message))


def hooks_by_tracing(tracing: Tracing, middleware: Sequence[Middleware]) -> tuple[Hooks, Hooks]:
    """Return the hooks for a process that has not imported OpenTelemetry, and those for one that has.

    The program may import it at any time. `hooks[spans.SDK in sys.modules]` are the right ones.
    """
    return Hooks(middleware), Hooks((tracing, *middleware))
