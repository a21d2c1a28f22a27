"""Run a body as a Celery task.

Check the contract, give the body its context, turn what it says into Celery's words.
"""

import random
from typing import Any

from celery import Celery, Task
from pydantic import BaseModel, ValidationError

from millpond.broker.batches.record import completed_batch
from millpond.tasks.context import Context
from millpond.tasks.contract import explain
from millpond.tasks.errors import FinalError, MillpondError, RetryLater
from millpond.tasks.handlers import Body
from millpond.tasks.pools import Table
from millpond.worker.celery.retry import retry_after
from millpond.worker.celery.thread_stack import PondTask
from millpond.worker.task_context import context


def register(app: Celery, body: Body, table: Table) -> Task:
    """Make a Celery task of a body, with the time limits of its kind's queue."""
    queue = table.queues.get(body.contract.queue)

    def run(self: Task, **kwargs: Any) -> Any:
        return run_body(self, body, kwargs)

    return app.task(
        run,
        name=body.kind,
        base=PondTask,
        bind=True,
        shared=False,  # other applications of this process are not asked to have it
        max_retries=body.retries,
        soft_time_limit=queue and queue.soft_limit_seconds,
        time_limit=queue and queue.hard_limit_seconds,
        queue=body.contract.queue,
        Strategy="millpond.worker.celery.strategy:pond",
        throws=(MillpondError,),  # said in one line, not logged with a traceback
    )


def run_body(task: Task, body: Body, kwargs: dict[str, Any]) -> Any:
    """Run a body once. Raises `BadContract`, Celery's `Retry`, or what the body raised."""
    try:
        job = body.contract.model_validate(kwargs)
    except ValidationError as error:
        raise explain(error, what=body.kind) from None
    try:
        answer = body.function(job, context_of(task, body))
    except RetryLater as later:
        retries = task.request.retries
        wait = later.after_seconds if later.after_seconds is not None else backoff_seconds(body, retries)
        raise retry_after(task, body, kwargs, later, seconds=wait) from later
    except SystemExit as exit_:
        raise FinalError(f"the body called sys.exit({exit_.code!r}); a body returns or raises") from exit_
    return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer


def backoff_seconds(body: Body, retries: int) -> float:
    """Draw the wait before the next run: exponential, with full jitter.

    Source: Brooker, "Exponential backoff and jitter", 2015.
    """
    return random.uniform(0, min(body.backoff_limit_seconds, body.backoff_seconds * 2.0**retries))


def context_of(task: Task, body: Body) -> Context:
    """Make the context of the task that runs now."""
    request = task.request
    own = getattr(request, "millpond", None) or {}
    return context(
        id=request.id or "by-hand",
        kind=body.kind,
        retries=request.retries or 0,
        deliveries=1 + int(own.get("deliveries", 0)),
        batch=own.get("batch"),
        clock_ms=int(own.get("clock_ms", 0)),
        batch_summary=completed_batch(own.get("after")),
    )
