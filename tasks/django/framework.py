"""Import Django's tasks framework: from Django 6.0 on a part of Django, and before that `django_tasks`.

Only modules that need Django import it. Millpond itself needs none.
"""

from datetime import UTC, datetime
from typing import Any

try:
    from django.tasks import TaskResult, TaskResultStatus, task_backends
    from django.tasks.base import Task, TaskContext, TaskError
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
except ImportError:
    from django_tasks import TaskResult, TaskResultStatus, task_backends
    from django_tasks.base import Task, TaskContext, TaskError
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json

from django.conf import settings as django_settings

from millpond.tasks.django.contract import RunDjangoTask
from millpond.tasks.settings import Settings
from millpond.tasks.settings import settings as read_settings

__all__ = [
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "normalize_json",
    "result_of",
    "settings",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]


def settings() -> Settings:
    """Return Millpond's settings, changed by the `MILLPOND` of Django's settings. Raises `SettingsError`."""
    options = getattr(django_settings, "MILLPOND", None)
    if not options:
        return read_settings()
    return Settings(**{name.lower(): value for name, value in options.items()})


def result_of(task: Any, task_id: str, job: RunDjangoTask, status: Any, **outcome: Any) -> Any:
    """Return Django's `TaskResult` of a task.

    `outcome` has fields of the `TaskResult`, and as `value` the return value of the task's function.
    """
    value = outcome.pop("value", None)
    enqueued_at_ms = job.enqueued_at_ms
    fields: dict[str, Any] = {
        "enqueued_at": None if enqueued_at_ms is None else datetime.fromtimestamp(enqueued_at_ms / 1000, UTC),
        "started_at": None,
        "finished_at": None,
        "last_attempted_at": outcome.get("started_at"),
        "errors": [],
        "worker_ids": [],
        **outcome,
    }
    result = TaskResult(
        task=task, id=task_id, status=status, args=job.args, kwargs=job.kwargs, backend=job.backend, **fields
    )
    object.__setattr__(result, "_return_value", value)  # Django's own backends set it so
    return result
