"""Run deliveries in a slot: a thread or a child of the pool.

A handler is called directly, without Celery's tracer. The tracer runs plain Celery tasks. It also runs a
handler if its user would see a difference: the message has callbacks or a chain, a signal of tasks has a
receiver, the task has a result backend, or another library has replaced the tracer.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from sys import modules
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore, Reject, Retry

from millpond.broker.batches.record import Summary, parse_completed_batch
from millpond.broker.celery.backend_notices import make_dead_letter_error, notify_end
from millpond.broker.celery.task_tracer import (
    RunningRequest,
    answered_task,
    must_be_traced,
    process_globals,
    run_traced,
    task_stack,
)
from millpond.broker.delivery import Delivery
from millpond.broker.keys import batch_key
from millpond.broker.message import BadMessage, Message
from millpond.broker.outcomes import (
    REJECTED,
    REQUEUE,
    SUCCEEDED,
    Continued,
    DeadLetter,
    Outcome,
    Redeliver,
    Succeeded,
)
from millpond.tasks.context import Context
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.errors import RetryLater
from millpond.tasks.execute import classify_failure, error_line, execute, outcomes_of_errors
from millpond.tasks.handlers import Handler
from millpond.tasks.process.spans import SDK
from millpond.tasks.settings import settings
from millpond.worker.handler_services import (
    FRESH_SECONDS,
    Outbox,
    ProgressReporter,
    shared_cancellations,
)
from millpond.worker.report.recorded_calls import RECORDING, record_call, record_run
from millpond.worker.report.slot_sampler import RUNNING
from millpond.worker.supervise import process_tree

logger = logging.getLogger(__name__)

#: The `around_executing` of middleware, the innermost first.
Around = tuple[Callable[..., Any], ...]

#: The outcome of a run, its seconds, and its seconds on a processor.
SlotResult = tuple[Outcome, float, float]

outcomes_of_errors[Ignore] = lambda _error: SUCCEEDED
outcomes_of_errors[Reject] = lambda error: REQUEUE if error.requeue else REJECTED
outcomes_of_errors[Retry] = lambda error: _outcome_of_retry(error)

#: Signals of a task's run. Only Celery's tracer sends them.
_TRACER_SIGNALS = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_internal_error,
)


def _outcome_of_retry(error: Retry) -> Outcome:
    """Return the outcome of Celery's `Retry`: a dead letter if it has no signature, as then none was sent."""
    if error.sig is None:
        text = "Retry: raised by hand, which sends nothing: call self.retry, or raise RetryLater"
        return DeadLetter("Retry", text)
    return Continued(error_line(error.exc or error))


class CeleryHandler(Handler):
    """A handler whose function runs a Celery task by Celery's tracer."""

    takes_message = True


class TaskContext(Context):
    """The context of one delivery that runs in a slot. An attribute is made when it is first read."""

    def __init__(self, delivery: Delivery, worker: str) -> None:
        message = delivery.message
        self.__dict__.update(
            id=message.id,
            kind=message.kind,
            retries=message.retries,
            deliveries=1 + delivery.deliveries,
            batch=message.batch,
            message=message,
            worker=worker,
            delivery=delivery,
            started_at=time.monotonic(),
        )

    delivery: Delivery
    #: The start of the run (monotonic seconds).
    started_at: float

    def is_cancelled(self) -> bool:
        """True if the task or its batch was cancelled, by a reading that is at most `FRESH_SECONDS` old."""
        if time.monotonic() - self.started_at < FRESH_SECONDS:
            return False  # a task that was cancelled before its start does not start
        batch_record = batch_key(self.batch, settings().key_prefix)
        return shared_cancellations().includes_any(*filter(None, (self.id, batch_record)))

    def mark_call(self, peer: str, items: int) -> AbstractContextManager[None]:
        """Record for `millpond why` the call of a dependency inside a `with` block."""
        return record_call(self.kind, peer, items)

    @cached_property
    def report(self) -> "ProgressReporter":
        """The function with which the handler reports its progress."""
        return ProgressReporter(self.id)

    @cached_property
    def outbox(self) -> "Outbox":
        """The object with which the handler sends further tasks."""
        return Outbox(self.id, self.delivery.now_ms)

    @cached_property
    def batch_summary(self) -> Summary | None:
        """The counts of the batch whose callback this task is, or None if it is no callback."""
        return parse_completed_batch(self.delivery.message.own.get("after"))

    @cached_property
    def state(self) -> dict[str, Any]:
        """The objects that middleware passes to the handler, by name."""
        return {}


def run_delivery(delivery: Delivery) -> SlotResult:
    """Run the task of a delivery in the calling thread. Return its outcome, and its times in seconds.

    An error of the handler is an outcome too: it never ends the slot. Before the task, orphaned processes of
    earlier tasks are reaped, at most once in `REAP_SECONDS`.
    """
    tasks, _accept, hostname = process_globals
    thread, kind = threading.get_ident(), delivery.message.kind
    clock = time.process_time if thread == threading.main_thread().ident else time.thread_time
    began, cpu_began, task = time.monotonic(), clock(), tasks[kind]
    context = TaskContext(delivery, hostname)
    if began >= process_tree.reap_at:
        process_tree.reap_orphans()
    RUNNING[thread] = kind
    # Asked for each task: the application may import OpenTelemetry at any time, for example in a child.
    around = task.app.hooks[SDK in modules].around_executing
    outcome = _run_handler(task, delivery, context, around)
    RUNNING.pop(thread, None)
    seconds = time.monotonic() - began
    if RECORDING["on"] and type(outcome) is Succeeded:
        kwargs = delivery.message.arguments[1]
        if list in map(type, kwargs.values()):
            record_run(kind, kwargs, seconds)
    return outcome, seconds, clock() - cpu_began


def run_in_child(*fields: Any) -> SlotResult:
    """Run a delivery in a prefork child. `fields` are those of `delivery_fields`, which can be pickled."""
    delivery = Delivery(*fields)
    outcome, seconds, cpu_seconds = run_delivery(delivery)
    if delivery.needs_notice and type(outcome) is DeadLetter:
        outcome = replace(outcome, needs_notice=True)  # the worker process has another object of the delivery
    return outcome, seconds, cpu_seconds


def _run_handler(task: Task, delivery: Delivery, context: TaskContext, around: Around) -> Outcome:
    """Run the handler of a task, by Celery's tracer if the task needs it, and return the outcome."""
    handler: Handler | None = getattr(task, "handler", None)
    if handler is None or _needs_tracer(task, delivery):
        return _run_traced(task, handler, delivery, context, around)
    requests = task.request_stack.stack
    task_stack.push(task)
    requests.append(RunningRequest(context.id, delivery, context.worker))
    try:
        return execute(handler, delivery, context, around)
    except (SystemExit, KeyboardInterrupt) as error:
        return _outcome_of_exit(handler, delivery, context, error)
    finally:
        requests.pop()
        task_stack.pop()


def _needs_tracer(task: Task, delivery: Delivery) -> bool:
    """True if Celery's tracer must run the task: for signals, for callbacks, or if `must_be_traced`."""
    for signal in _TRACER_SIGNALS:
        if signal.receivers:
            return True
    if must_be_traced(task):
        return True
    try:
        _args, _kwargs, embed = delivery.message.arguments
    except BadMessage:
        return False
    return any(embed.values())


def _run_traced(
    task: Task,
    own_handler: Handler | None,
    delivery: Delivery,
    context: TaskContext,
    around: Around,
) -> Outcome:
    """Run a task by Celery's tracer and return the outcome. `own_handler` is None for a plain Celery task.

    The tracer logs a failure and notifies the result backend. A task that failed before the tracer was
    called, for example because its arguments are invalid, is logged here, and the backend is notified. If
    middleware answers in place of the task, the tracer is called with its answer.
    """
    was_traced = False

    def call_tracer(_message: Message, context: Any) -> Any:
        """Call Celery's tracer. Raises the handler's `RetryLater` in place of Celery's `Retry`."""
        nonlocal was_traced
        was_traced = True
        try:
            return run_traced(task, context.delivery, context.worker)
        except Retry as error:
            later = getattr(error, "later", None)
            if isinstance(later, RetryLater):
                raise later from None
            raise

    def trace_answer(job: Any, context: Any, call_next: Callable[..., Any]) -> Any:
        """Call the middleware. If it answers in place of the task, call the tracer with its answer."""
        value = call_next(job, context)
        if was_traced or isinstance(value, Outcome):
            return value
        return run_traced(answered_task(task, value), context.delivery, context.worker)

    contract = contracts_by_kind().get(task.name) if own_handler is None else own_handler.contract
    handler = CeleryHandler(contract, call_tracer, 0 if own_handler is None else own_handler.retries)
    try:
        outcome = execute(handler, delivery, context, around and (*around, trace_answer))
    except (SystemExit, KeyboardInterrupt) as error:
        return _outcome_of_exit(handler, delivery, context, error)
    if type(outcome) is DeadLetter and not was_traced:
        logger.error("Task %s[%s] did not start: %s", task.name, context.id, outcome.error)
        shown = make_dead_letter_error(outcome.reason, outcome.error)
        delivery.needs_notice = not notify_end(task.app, delivery.message, "failed", shown)
    return outcome


def _outcome_of_exit(
    handler: Handler, delivery: Delivery, context: TaskContext, error: BaseException
) -> Outcome:
    """Return the outcome of a handler that called sys.exit (a failure) or was interrupted (redelivered).

    A task that the tracer runs is redelivered for both: Celery's `WorkerShutdown` is a `SystemExit`.
    """
    if isinstance(error, KeyboardInterrupt) or handler.takes_message:
        return Redeliver(error_line(error))
    return classify_failure(handler, delivery, context, error, started_at=time.time())
