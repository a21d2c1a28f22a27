"""A Celery task for each handler. By it `celery inspect`, Flower and the worker know a kind."""

from typing import Any

from celery import Celery, Task
from celery.exceptions import Retry
from pydantic import BaseModel

from millpond.tasks.context import Context
from millpond.tasks.errors import FinalError, MillpondError, RetryLater
from millpond.tasks.execute import running_context, validate_job
from millpond.tasks.forked_child import call_ending_forks
from millpond.tasks.handlers import Handler
from millpond.tasks.pools import PoolsTable
from millpond.worker.celery.request_stack import PondTask
from millpond.worker.celery.stock_tasks import MILLPOND_STRATEGY


def register_handler(app: Celery, handler: Handler, table: PoolsTable) -> Task:
    """Register and return a Celery task that runs a handler, with the time limits of its kind's queue.

    Adds a route to that queue, unless the application has a list of routers.
    """
    assert handler.contract is not None
    queue = table.queues.get(handler.contract.queue)

    routes = app.conf.task_routes or {}
    if isinstance(routes, dict):  # an application of the user's may have a list of routers
        app.conf.task_routes = {**routes, handler.kind: {"queue": handler.contract.queue}}

    def run(self: Task, *args: Any, **kwargs: Any) -> Any:
        return run_handler(self, handler, args, kwargs)

    return app.task(
        run,
        name=handler.kind,
        base=PondTask,
        bind=True,
        shared=False,  # other applications in this process must not get the task
        max_retries=handler.retries,
        soft_time_limit=queue and queue.soft_limit_seconds,
        time_limit=queue and queue.hard_limit_seconds,
        Strategy=MILLPOND_STRATEGY,
        throws=(MillpondError,),  # logged in one line, without a traceback
        handler=handler,
    )


def run_handler(task: Task, handler: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a handler when Celery calls its task: in its tracer (worker/celery/slot.py), or eagerly.

    Raises the handler's errors, and Celery's `Retry` if the slot must settle a retry.
    """
    context, retries = running_context(), task.request.retries or 0
    if context is None or context.id != task.request.id:
        context = Context(id=task.request.id or "by-hand", kind=handler.kind, retries=retries)
    job = validate_job(handler, args, kwargs)
    try:
        result = call_ending_forks(handler.function, job, context)
    except RetryLater as later:
        if retries >= handler.retries:
            raise
        retry = Retry("the handler asked for it", when=0)
        retry.later = later  # the slot settles by the handler's error
        raise retry from later
    except SystemExit as exit_:
        raise FinalError(
            f"the handler called sys.exit({exit_.code!r}); a handler returns or raises"
        ) from exit_
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result
