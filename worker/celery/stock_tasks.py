"""Choose the plain Celery tasks that are received like tasks with a handler, by Millpond's strategy.

A module of `kinds` may declare plain Celery tasks. With Celery's own strategy a task that failed for good
would leave no dead letter, a task that has not started would not be released, and metrics would not count it.
"""

from celery import Celery, Task

#: The strategy that receives plain Celery tasks and tasks with a handler, as Celery names it.
MILLPOND_STRATEGY = "millpond.worker.celery.strategy:millpond_strategy"


def use_millpond_strategy(app: Celery) -> None:
    """Set Millpond's strategy for each plain task. A task with a strategy of its own keeps it."""
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
