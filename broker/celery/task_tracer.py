"""Celery's tracer, which runs its tasks: when it is needed, how it is called, and its substitute.

A handler of a kind needs it only if the difference would show: see worker/celery/slot.py.
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

from millpond.broker.celery.backend_notices import notify_end
from millpond.broker.celery.request import request_dict
from millpond.broker.delivery import Delivery

#: The stack whose top is `current_task`. Each task's own stack has its requests.
task_stack = _task_stack


#: Of this worker process or child: its tasks, the content types that it accepts, and its name.
of_this_process: list[Any] = trace._localized


@cache
def needs_no_backend(task: Task) -> bool:
    """True if no result backend hears of the task, and its tracer is Celery's own."""
    own_tracer = task.__trace__.__code__.co_filename == trace.__file__
    return own_tracer and isinstance(task.backend, DisabledBackend)


def run_traced(task: Task, delivery: Delivery, hostname: str) -> Any:
    """Run a task by Celery's tracer. Return its value or raise its error.

    A result backend is notified by the tracer, or by this function if the tracer did not come to it.
    """
    args, kwargs, embed = delivery.message.arguments
    request = request_dict(delivery, hostname)
    request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embed)
    returned, info, _seconds, _shown = task.__trace__(delivery.message.id, args, kwargs, request)
    # An error outside the task's function has no info: wrong arguments, a signal's receiver.
    if info is not None:
        raise info.retval
    if isinstance(returned, ExceptionInfo):
        wrong: BaseException = getattr(returned.exception, "exc", returned.exception)
        notify_end(task.app, delivery.message, "failed", wrong)
        raise wrong
    return returned


@dataclass(eq=False)
class RunningRequest:
    """The `current_task.request` of a running handler.

    Celery's own is made when another attribute is read.
    """

    id: str
    delivery: Delivery
    hostname: str

    def __getattr__(self, name: str) -> Any:
        """Make Celery's own context when an attribute is read that is not set yet."""
        if name.startswith("_"):
            raise AttributeError(name)
        args, kwargs, embed = self.delivery.message.arguments
        request = request_dict(self.delivery, self.hostname)
        celerys = Context(request, args=args, kwargs=kwargs, called_directly=False, **embed)
        self.__dict__.update(vars(celerys))
        return getattr(celerys, name)
