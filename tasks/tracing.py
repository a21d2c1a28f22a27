"""Built-in middleware that traces a task: its sending, its wait, its run and its settlement.

The spans of a worker lie under the span of the sender, which the message names. A process that has not
imported OpenTelemetry is without this middleware.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome
from millpond.tasks.contract import kinds
from millpond.tasks.execute import error_line, outcomes_of_errors
from millpond.tasks.middleware import Hooks, Middleware, Sending
from millpond.tasks.process import spans
from millpond.tasks.redaction import hides_fields, scrub, secrets_in

_NS = 1_000_000


class Tracing(Middleware):
    """Traces tasks. `endpoint` is the collector's URL. None stands for the program's own OpenTelemetry.

    Raises `SettingsError` if OpenTelemetry is not installed and there is an endpoint.
    """

    def __init__(self, endpoint: str | None, *, service: str) -> None:
        spans.configure(endpoint, service=service)
        #: The spans of tasks without a reply of the broker so far, by id.
        self._sending: dict[str, Any] = {}

    def on_sending(self, sending: Sending) -> None:
        """Begin the span of a task, which ends with the broker's reply. The message carries its name."""
        span = spans.begin_span(f"send {sending.queue}", "PRODUCER", sending.traceparent)
        if span is None:
            return
        own = {"batch": sending.batch}
        span.set_attributes(
            spans.span_attributes(sending.job.kind, id=sending.id, queue=sending.queue, own=own)
        )
        sending.traceparent = spans.traceparent(span)
        self._sending[sending.id] = span

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """End the span of a task, as failed if the task was refused."""
        span = self._sending.pop(sending.id, None)
        if span is None:
            return
        if error is not None:
            spans.mark_failed(span, type(error).__name__)
        span.end()

    def around_executing(self, job: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        """Trace a run. `context.state` links a retry to it."""
        span = _begin_run(context.delivery)
        if span is None:
            return call_next(job, context)
        context.state["traceparent"] = spans.traceparent(span)
        with spans.make_current(span):
            try:
                value = call_next(job, context)
            except BaseException as error:
                if text := _shown_error(error, context.message):
                    spans.mark_failed(span, text)
                raise
            if text := getattr(value, "error", None) if isinstance(value, Outcome) else None:
                spans.mark_failed(span, text)
            return value

    def on_outcome(self, delivery: Delivery, outcome: Outcome, seconds: float | None) -> None:
        """Begin the span of a settlement, which ends when the broker has confirmed it."""
        del outcome, seconds
        if spans.tracer() is None:
            return
        message, queue = delivery.message, delivery.queue
        attributes = spans.span_attributes(message.kind, id=message.id, queue=queue)
        span = spans.begin_span(f"settle {queue}", "INTERNAL", message.traceparent, attributes=attributes)
        delivery.on_settled = span.end

    def on_worker_stop(self) -> None:
        """Send the spans that are buffered."""
        spans.flush()


def _begin_run(delivery: Delivery) -> Any:
    """Trace the wait of a task until now, and begin the span of its run. Return None if tracing is off."""
    if spans.tracer() is None:
        return None
    message = delivery.message
    parent, queue = message.traceparent, delivery.queue
    attributes = spans.span_attributes(message.kind, id=message.id, queue=queue, own=message.own)
    now_ns, since_ms = time.time_ns(), delivery.ready_ms
    if since_ms is not None:
        began = min(now_ns, (since_ms - delivery.clock_ms) * _NS)
        waited = spans.begin_span(
            f"wait {queue}", "INTERNAL", parent, attributes=attributes, start_time=began
        )
        waited.end(now_ns)
    attributes |= {"millpond.retries": message.retries, "millpond.deliveries": 1 + delivery.deliveries}
    links = spans.links_to(message.own.get("link"))
    return spans.begin_span(f"run {message.kind}", "CONSUMER", parent, attributes=attributes, links=links)


def _shown_error(error: BaseException, message: Message) -> str | None:
    """Return an error as a span shows it, without secrets. Return None if the error means a success."""
    for error_type, outcome_of in outcomes_of_errors.items():
        if isinstance(error, error_type):
            return getattr(outcome_of(error), "error", None)
    contract = kinds().get(message.kind)
    if contract is None or not hides_fields(contract):
        return error_line(error)
    args, kwargs, _embed = message.arguments
    return error_line(error, partial(scrub, secrets=secrets_in(contract, args, kwargs)))


def hooks_without_and_with(tracing: Tracing, middleware: Sequence[Middleware]) -> tuple[Hooks, Hooks]:
    """Return the hooks of a process that has not imported OpenTelemetry, and of one that has.

    The program may import it at any time: `hooks[spans.SDK in sys.modules]` are those that hold now.
    """
    return Hooks(middleware), Hooks((tracing, *middleware))
