"""Plain Celery tasks are run like handlers if they use nothing else of Celery.

A module of `kinds` may hold plain Celery tasks. Received Celery's own way, one that failed for good would
leave no dead letter, a task that has not started would not be released, and no figure would count it.
"""

from celery import Celery, Task

#: The strategy that receives them.
POND = "millpond.worker.celery.strategy:pond"


def use_millpond_strategy(app: Celery) -> None:
    """Receive the application's plain tasks like handlers. Tasks with a strategy of their own keep it."""
    for task in app.tasks.values():
        if _is_plain_task(task):
            task.Strategy = POND


def _is_plain_task(task: Task) -> bool:
    """True if a task is received, acknowledged and limited as Celery's own defaults have it."""
    return bool(
        not task.name.startswith("celery.")
        and task.Strategy == Task.Strategy
        and task.Request == Task.Request
        and task.acks_late  # else it is acknowledged as it starts
        and task.rate_limit is None  # else held back in the worker: the pool's rate is the queue's
    )
