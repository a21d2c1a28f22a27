"""Run plain Celery tasks like handlers if they use nothing else of Celery.

A module of `kinds` may declare plain Celery tasks. With Celery's own strategy a task that failed for good
would leave no dead letter, a task that has not started would not be released, and metrics would not count it.
"""

from celery import Celery, Task

#: The strategy that receives plain tasks, and tasks with a handler.
MILLPOND_STRATEGY = "millpond.worker.celery.strategy:millpond_strategy"


def use_millpond_strategy(app: Celery) -> None:
    """Receive the application's plain tasks like handlers. Tasks with a strategy of their own keep it."""
    for task in app.tasks.values():
        if _is_plain_task(task):
            task.Strategy = MILLPOND_STRATEGY


def _is_plain_task(task: Task) -> bool:
    """True if a task has Celery's default strategy and request, is acknowledged late and has no rate limit.

    Celery's own tasks (`celery.…`) are not plain.
    """
    return bool(
        not task.name.startswith("celery.")
        and task.Strategy == Task.Strategy
        and task.Request == Task.Request
        and task.acks_late  # else it is acknowledged as it starts
        and task.rate_limit is None  # else held back in the worker: the pool's rate is the queue's
    )
