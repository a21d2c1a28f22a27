"""Run deliveries in a slot, a thread or a child of the pool: what `execute` needs of Celery stands here.

A handler of a kind is run at once. Celery's tracer runs a plain Celery task, and a handler where the
difference would show: a message with callbacks or a chain, a receiver of a task's signals, a result backend,
a tracer that another library has wrapped.
"""

import threading
import time
from functools import cache, partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery, Task, signals
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context as CeleryContext
from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore, Reject, Retry

from millpond.broker.delivery import Delivery
from millpond.broker.message import BadMessage, Message
from millpond.broker.outcomes import REDELIVER, REJECTED, SUCCEEDED, Continued, Outcome, Redeliver
from millpond.tasks.contract import kinds
from millpond.tasks.errors import RetryLater
from millpond.tasks.execute import error_line, execute, failed, outcomes_of_errors
from millpond.tasks.handlers import Handler
from millpond.tasks.middleware import overriding
from millpond.worker.report.slot_sampler import RUNNING
from millpond.worker.report.tracing import running
from millpond.worker.task_context import TaskContext

#: How it ended, the seconds it took, and the seconds of them on a processor.
Answer = tuple[Outcome, float, float]

#: Signals of a task's run; a receiver of one of them is called by Celery's tracer alone.
_SIGNALS = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_internal_error,
)

#: What of a message's headers Celery does not count among a task's own.
_CELERYS_HEADERS = frozenset((*vars(CeleryContext), "lang", "task", "argsrepr", "kwargsrepr", "compression"))

outcomes_of_errors[Ignore] = lambda _error: SUCCEEDED
outcomes_of_errors[Reject] = lambda error: REDELIVER if error.requeue else REJECTED
outcomes_of_errors[Retry] = lambda error: Continued(error_line(error.exc or error))


class CeleryHandler(Handler):
    """A Celery task as a handler: its function is the tracer."""

    logs_itself = True

    def job(self, message: Message) -> Message:
        """Return the message: Celery passes its arguments as they are."""
        return message


def run(delivery: Delivery) -> Answer:
    """Run a delivery and answer how it ended, whatever its handler raises: a slot is never lost."""
    tasks, _accept, hostname = trace._localized
    clock = time.process_time if threading.current_thread() is threading.main_thread() else time.thread_time
    began, used, task = time.monotonic(), clock(), tasks[delivery.message.kind]
    context, thread = TaskContext(delivery, hostname), threading.get_ident()
    RUNNING[thread] = delivery.message.kind
    with running(delivery) as traced:
        outcome = _run(task, delivery, context)
        traced.end(outcome)
    RUNNING.pop(thread, None)
    return outcome, time.monotonic() - began, clock() - used


def _run(task: Task, delivery: Delivery, context: TaskContext) -> Outcome:
    own: Handler | None = getattr(task, "handler", None)
    if own is None or _needs_tracer(task, delivery):
        contract = kinds().get(task.name) if own is None else own.contract
        handler: Handler = CeleryHandler(contract, partial(_trace, task), 0 if own is None else own.retries)
        return _execute(handler, task, delivery, context)
    _task_stack.push(task)
    task.request_stack.push(Request(delivery, context.worker))
    try:
        return _execute(own, task, delivery, context)
    finally:
        task.request_stack.pop()
        _task_stack.pop()


def _execute(handler: Handler, task: Task, delivery: Delivery, context: TaskContext) -> Outcome:
    try:
        return execute(handler, delivery, context, task.app.around_executing)
    except SystemExit as error:
        if handler.logs_itself:  # Celery's `WorkerShutdown` is one
            return Redeliver(error_line(error))
        return failed(handler, delivery, context, error, began=time.time())
    except KeyboardInterrupt as error:
        return Redeliver(error_line(error))


def prepare(app: Celery) -> None:
    """Choose what slots of this application need; after this, its middleware stays as it is."""
    app.around_executing = overriding(app.middleware, "around_executing")


def _needs_tracer(task: Task, delivery: Delivery) -> bool:
    for signal in _SIGNALS:
        if signal.receivers:
            return True
    if not _is_bare(task):
        return True
    try:
        _args, _kwargs, embed = delivery.message.arguments
    except BadMessage:
        return False
    return any(embed.values())


@cache
def _is_bare(task: Task) -> bool:
    """True if no result backend hears of the task, and its tracer is Celery's own."""
    own_tracer = task.__trace__.__code__.co_filename == trace.__file__
    return own_tracer and isinstance(task.backend, DisabledBackend)


def _trace(task: Task, message: Message, context: TaskContext) -> Any:
    """Run a task by Celery's tracer; return its value or raise what it raised."""
    args, kwargs, embed = message.arguments
    request = request_of(context.delivery, context.worker)
    request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embed)
    returned, info, _seconds, _shown = task.__trace__(message.id, args, kwargs, request)
    # What went wrong outside the body has no info: arguments that are none, a signal's receiver.
    if info is None and not isinstance(returned, ExceptionInfo):
        return returned
    error = info.retval if info is not None else returned.exception
    later = getattr(error, "later", None)
    if isinstance(later, RetryLater):
        raise later
    raise getattr(error, "exc", error) if info is None else error


class Request:
    """What `current_task.request` is while a handler runs; Celery's own is made if somebody asks for more."""

    def __init__(self, delivery: Delivery, hostname: str) -> None:
        self.id = delivery.message.id
        self._delivery = delivery
        self._hostname = hostname

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        args, kwargs, embed = self._delivery.message.arguments
        request = request_of(self._delivery, self._hostname)
        celerys = CeleryContext(request, args=args, kwargs=kwargs, called_directly=False, **embed)
        self.__dict__.update(vars(celerys))
        return getattr(celerys, name)


def request_of(delivery: Delivery, hostname: str) -> dict[str, Any]:
    """Return what Celery's tracer is told of a delivery."""
    message = delivery.message
    own = {**message.own, "deliveries": delivery.deliveries, "clock_ms": delivery.clock_ms}
    headers = {**message.headers, "eta": None, "millpond": own}
    properties = message.properties
    return {
        **headers,
        "hostname": hostname,
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "delivery_info": {
            "exchange": "",
            "routing_key": delivery.queue,
            "priority": properties.get("priority"),
            "redelivered": delivery.deliveries > 0,
        },
        "headers": {name: headers[name] for name in headers.keys() - _CELERYS_HEADERS} or None,
    }
