"""Set Django up in a worker, import the kinds of the project, and run the tasks of Django's framework.

`manage.py millpond worker POOL` names this module in `kinds`. Without it: `DJANGO_SETTINGS_MODULE`, as for
any program of the project, and `MILLPOND_KINDS=millpond.tasks.django.task`.
"""

from datetime import UTC, datetime
from typing import Any

import django
from django.db import close_old_connections
from django.utils.module_loading import autodiscover_modules, import_string

from millpond.tasks.context import Context
from millpond.tasks.django.contract import RunDjangoTask
from millpond.tasks.errors import FinalError
from millpond.tasks.handlers import handler

django.setup()
#: An application declares kinds and handlers in its module `kinds`, as it declares models in `models`.
autodiscover_modules("kinds")


@handler(RunDjangoTask, retries=0)
def run_django_task(job: RunDjangoTask, context: Context) -> Any:
    """Run a task of Django's framework. Return its value, the worker, and its start and end in Unix seconds.

    Sends Django's signals `task_started` and `task_finished`. Raises `FinalError` if `job.path` is no task.
    """
    from millpond.tasks.django import framework

    task = import_string(job.path)
    if not isinstance(task, framework.Task):
        raise FinalError(f"{job.path} is no task: decorate the function with @task of Django's framework")
    status, started_at = framework.TaskResultStatus, datetime.now(UTC)
    fields: dict[str, Any] = {"started_at": started_at, "worker_ids": [context.worker] * context.deliveries}
    result = framework.result_of(task, context.id, job, status.RUNNING, **fields)
    backend = type(framework.task_backends[job.backend])
    framework.task_started.send(sender=backend, task_result=result)
    close_old_connections()
    try:
        first_args = (framework.TaskContext(task_result=result),) if task.takes_context else ()
        value = framework.normalize_json(task.call(*first_args, *job.args, **job.kwargs))
        success = framework.result_of(task, context.id, job, status.SUCCESSFUL, value=value, **fields)
        framework.task_finished.send(sender=backend, task_result=success)
    except BaseException:
        failure = framework.result_of(task, context.id, job, status.FAILED, **fields)
        framework.task_finished.send(sender=backend, task_result=failure)
        raise
    finally:
        close_old_connections()
    times = {"started_at": started_at.timestamp(), "finished_at": datetime.now(UTC).timestamp()}
    return {"value": value, "worker": context.worker, **times}
