"""Celery's tracer, which runs Celery's tasks, and the `current_task` of a handler that runs without it.

worker/celery/slot.py decides which tasks are run by the tracer.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Task
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.exceptions import Reject, Retry

from millpond.broker.celery.backend_notices import notify_end
from millpond.broker.celery.request import make_request_dict
from millpond.broker.delivery import Delivery

#: The stack whose top is `current_task`. Each task has a stack of its own for its requests.
task_stack = _task_stack


#: What Celery knows of this worker process or child: its tasks, the content types that it accepts, its name.
process_globals: list[Any] = trace._localized


@cache
def must_be_traced(task: Task) -> bool:
    """True if the task has a result backend, or a library has replaced Celery's tracer of the task."""
    is_replaced = task.__trace__.__code__.co_filename != trace.__file__
    return is_replaced or not isinstance(task.backend, DisabledBackend)


def run_traced(task: Task, delivery: Delivery, hostname: str) -> Any:
    """Run a task by Celery's tracer. Return its value or raise its error.

    The tracer notifies the result backend. If the error is outside of the task's function, this function
    does. If the backend does not take it, `needs_notice` of the delivery is set.
    """
    args, kwargs, embed = delivery.message.arguments
    request = make_request_dict(delivery, hostname)
    request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embed)
    try:
        returned, info, _seconds, _shown = task.__trace__(delivery.message.id, args, kwargs, request)
    except (Reject, MemoryError):
        raise
    except Exception as raised:  # of the result backend, which has not taken the error of the task either
        retry = _find_retry(raised)
        if retry is not None:  # the next run is sent already, so the task has not ended
            raise retry from raised
        delivery.needs_notice = not notify_end(task.app, delivery.message, "failed", raised)
        raise
    if info is not None:
        raise info.retval
    # An error outside of the task's function, as of a signal's receiver, has no info.
    if isinstance(returned, ExceptionInfo):
        error: BaseException = getattr(returned.exception, "exc", returned.exception)
        delivery.needs_notice = not notify_end(task.app, delivery.message, "failed", error)
        raise error
    return returned


def _find_retry(raised: BaseException) -> Retry | None:
    """Return the task's `Retry` during whose handling the backend raised an error, or None."""
    error = raised.__context__
    while error is not None and not isinstance(error, Retry):
        error = error.__context__
    return error


def answered_task(task: Task, value: Any) -> Task:
    """Return a task like this one whose function returns `value`.

    The tracer runs it for a task that middleware has answered: its result is stored, and its callbacks and
    its chain are sent.
    """
    answered = object.__new__(type(task))
    answered.__dict__.update(vars(task), run=lambda *_args, **_kwargs: value)
    _tasks, _accept, hostname = trace._localized
    answered.__trace__ = trace.build_tracer(task.name, answered, task.app.loader, hostname, app=task.app)
    return answered


@dataclass(eq=False)
class RunningRequest:
    """The `current_task.request` of a running handler.

    Its three fields are set at once. All others are computed when one of them is read.
    """

    id: str
    delivery: Delivery
    hostname: str

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that is not set yet: set all attributes of Celery's own request before."""
        if name.startswith("_"):
            raise AttributeError(name)
        args, kwargs, embed = self.delivery.message.arguments
        fields = make_request_dict(self.delivery, self.hostname)
        context = Context(fields, args=args, kwargs=kwargs, called_directly=False, **embed)
        self.__dict__.update(vars(context))
        return getattr(context, name)
