"""Run deliveries in a slot, a thread or a child of the pool.

A handler of a kind is run at once. Celery's tracer runs a plain Celery task, and a handler where the
difference would show: a message with callbacks or a chain, a receiver of a task's signals, a result backend,
a tracer that another library has wrapped.
"""

import logging
import threading
import time
from sys import modules
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, Retry

from millpond.broker.celery import descendants
from millpond.broker.celery.backend_notices import error_of, tell_of
from millpond.broker.celery.task_tracer import (
    RunningRequest,
    is_bare,
    of_this_process,
    run_traced,
    task_stack,
)
from millpond.broker.delivery import Delivery
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
from millpond.tasks.contract import kinds
from millpond.tasks.errors import RetryLater
from millpond.tasks.execute import error_line, execute, failed, outcomes_of_errors
from millpond.tasks.handlers import Handler
from millpond.tasks.middleware import Middleware, overriding
from millpond.worker.report import tracing
from millpond.worker.report.noted_calls import note_run
from millpond.worker.report.noted_calls import switch as NOTES
from millpond.worker.report.slot_sampler import RUNNING
from millpond.worker.task_context import TaskContext

logger = logging.getLogger(__name__)

#: How it ended, the seconds it took, and the seconds of them on a processor.
Answer = tuple[Outcome, float, float]

outcomes_of_errors[Ignore] = lambda _error: SUCCEEDED
outcomes_of_errors[Reject] = lambda error: REQUEUE if error.requeue else REJECTED
outcomes_of_errors[Retry] = lambda error: _outcome_of_retry(error)


#: Signals of a task's run; a receiver of one of them is called by Celery's tracer alone.
_SIGNALS = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_internal_error,
)


def _outcome_of_retry(error: Retry) -> Outcome:
    """Return the outcome of Celery's `Retry`; without a signature nothing was sent, and nothing comes."""
    if error.sig is None:
        text = "Retry: raised by hand, which sends nothing: call self.retry, or raise RetryLater"
        return DeadLetter("Retry", text)
    return Continued(error_line(error.exc or error))


class CeleryHandler(Handler):
    """A Celery task as a handler: its function is the tracer."""

    takes_message = True


def prepare(app: Celery) -> None:
    """Choose the middleware for the slots of this application; it must not change after this."""
    app.around_executing = overriding(app.middleware, "around_executing")
    app.around_traced = tracing.TRACING, *app.around_executing


def run(delivery: Delivery) -> Answer:
    """Run a delivery and return its outcome, also for any error of its handler: a slot is never lost."""
    tasks, _accept, hostname = of_this_process
    thread, kind = threading.get_ident(), delivery.message.kind
    clock = time.process_time if thread == threading.main_thread().ident else time.thread_time
    began, used, task = time.monotonic(), clock(), tasks[kind]
    context = TaskContext(delivery, hostname)
    if began >= descendants.reap_at:
        descendants.reap_orphans()
    RUNNING[thread] = kind
    app = task.app
    # OpenTelemetry may be set up at any time, as by the application in a child that has started.
    middleware = app.around_traced if tracing.SDK in modules else app.around_executing
    outcome = _run(task, delivery, context, middleware)
    RUNNING.pop(thread, None)
    seconds = time.monotonic() - began
    if NOTES["on"] and type(outcome) is Succeeded:
        kwargs = delivery.message.arguments[1]
        if list in map(type, kwargs.values()):
            note_run(kind, kwargs, seconds)
    return outcome, seconds, clock() - used


def run_in_child(*known: Any) -> Answer:
    """Run the delivery of these `facts` in a child of the process that has it."""
    return run(Delivery(*known))


def _run(task: Task, delivery: Delivery, context: TaskContext, middleware: tuple[Middleware, ...]) -> Outcome:
    handler: Handler | None = getattr(task, "handler", None)
    if handler is None or _needs_tracer(task, delivery):
        return _run_traced(task, handler, delivery, context, middleware)
    requests = task.request_stack.stack
    task_stack.push(task)
    requests.append(RunningRequest(context.id, delivery, context.worker))
    try:
        return execute(handler, delivery, context, middleware)
    except (SystemExit, KeyboardInterrupt) as error:
        return _outcome_of_exit(handler, delivery, context, error)
    finally:
        requests.pop()
        task_stack.pop()


def _needs_tracer(task: Task, delivery: Delivery) -> bool:
    for signal in _SIGNALS:
        if signal.receivers:
            return True
    if not is_bare(task):
        return True
    try:
        _args, _kwargs, embed = delivery.message.arguments
    except BadMessage:
        return False
    return any(embed.values())


def _run_traced(
    task: Task,
    own: Handler | None,
    delivery: Delivery,
    context: TaskContext,
    middleware: tuple[Middleware, ...],
) -> Outcome:
    """Run a task by Celery's tracer; tell and log here how one ended that did not come to it."""
    came: list[bool] = []
    handler = _traced(task, own, came)
    try:
        outcome = execute(handler, delivery, context, middleware)
    except (SystemExit, KeyboardInterrupt) as error:
        return _outcome_of_exit(handler, delivery, context, error)
    if type(outcome) is DeadLetter and not came:
        logger.error("Task %s[%s] did not start: %s", task.name, context.id, outcome.error)
        tell_of(task.app, delivery.message, "failed", error_of(outcome.reason, outcome.error))
    return outcome


def _outcome_of_exit(
    handler: Handler, delivery: Delivery, context: TaskContext, error: BaseException
) -> Outcome:
    """Return the outcome of a handler that called sys.exit or was interrupted."""
    if isinstance(error, KeyboardInterrupt) or handler.takes_message:  # Celery's `WorkerShutdown` is one
        return Redeliver(error_line(error))
    return failed(handler, delivery, context, error, began=time.time())


def _traced(task: Task, own: Handler | None, came: list[bool]) -> Handler:
    def by_tracer(_message: Message, context: Any) -> Any:
        came.append(True)
        try:
            return run_traced(task, context.delivery, context.worker)
        except Retry as error:
            later = getattr(error, "later", None)
            if isinstance(later, RetryLater):
                raise later from None
            raise

    contract = kinds().get(task.name) if own is None else own.contract
    return CeleryHandler(contract, by_tracer, 0 if own is None else own.retries)
