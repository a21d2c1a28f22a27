"""Choose the plain Celery tasks that are received like tasks with a handler, by Millpond's strategy.

A module of `kinds` may declare plain Celery tasks. With Celery's own strategy a task that failed for good
would leave no dead letter, a task that has not started would not be released, and metrics would not count it.
"""

import sys
from collections.abc import Iterable, Iterator

from celery import Celery, Task

#: The strategy that receives plain Celery tasks and tasks with a handler, as Celery names it.
MILLPOND_STRATEGY = "millpond.worker.celery.strategy:millpond_strategy"


def use_millpond_strategy(app: Celery) -> None:
    """Set Millpond's strategy for each plain task. A task with a strategy of its own keeps it."""
    for task in app.tasks.values():
        if _is_plain_task(task):
            task.Strategy = MILLPOND_STRATEGY


def backends_without_results(modules: Iterable[str]) -> Iterator[str]:
    """Yield a line for each application in these imported modules whose result backend is not used.

    A worker of `kinds` stores no results of plain tasks.
    """
    applications = {
        id(value): (module, name, value)
        for module in modules
        for name, value in reversed(vars(sys.modules[module]).items())
        if issubclass(type(value), Celery)  # `isinstance` would load a lazy object
    }
    for module, name, app in applications.values():
        try:
            backend, ignores = app.conf.result_backend, app.conf.task_ignore_result
        except Exception:  # its settings cannot be loaded, which a worker of `kinds` does not need
            continue
        if backend and not ignores and not str(backend).startswith("disabled"):
            yield (
                f"the application of {module} has a result backend, and this worker stores no results of its "
                f"tasks: .get() and chords wait in vain. For results start it with --app {module}:{name}"
            )


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
