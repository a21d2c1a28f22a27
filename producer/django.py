"""Millpond in a Django project: its client, sending when the transaction commits, and Django's own tasks.

    INSTALLED_APPS = [..., "millpond.django"]           # manage.py millpond worker POOL
    MILLPOND = {"broker_url": "redis://broker/0"}       # any setting of Millpond's
    TASKS = {"default": {"BACKEND": "millpond.django.MillpondBackend"}}

Needs Django; with a Django before 6.0, `django-tasks` for the backend.
"""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.utils.module_loading import import_string

try:
    from django.tasks.backends.base import BaseTaskBackend
except ImportError:
    from django_tasks.backends.base import BaseTaskBackend

from millpond.broker.batches import record, task_result
from millpond.broker.errors import UnknownBatch
from millpond.broker.inspect.dead_letters import LetterFilter, read_dead_letters
from millpond.broker.task_state import TaskState
from millpond.producer.client import Client
from millpond.producer.message import Sendable
from millpond.tasks.django import framework
from millpond.tasks.django.contract import RunDjangoTask
from millpond.tasks.process.one_per_process import one_per_process


@one_per_process
def client() -> Client:
    """Return the project's client: one for the process, connected at its first call."""
    return Client(settings=framework.settings())


def send_on_commit(contract: Sendable, *, using: str | None = None, **options: Any) -> None:
    """Send a task when the current transaction commits, or at once if there is no transaction.

    A transaction that is rolled back sends nothing. `options` are those of `Client.send`. `using` names the
    database. An error of the send, such as `QueueFull`, is raised after the commit and undoes nothing.
    """
    transaction.on_commit(partial(client().send, contract, **options), using=using)


class MillpondBackend(BaseTaskBackend):
    """A backend of Django's tasks framework. A queue has the same name in Django and in Millpond.

    Priorities above 0 are fetched first, then 0, then those down to -50, then the others. A result is kept
    for a day after the task ended.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task and return its result, whose status is READY. Raises the errors of `Client.send`."""
        self.validate_task(task)
        project_client, id = client(), str(uuid4())
        job = RunDjangoTask(
            path=task.module_path,
            args=framework.normalize_json(list(args)),
            kwargs=framework.normalize_json(dict(kwargs)),
            priority=task.priority,
            backend=self.alias,
            enqueued_at_ms=project_client.now_ms(),
        )
        task_result.open_record(project_client.store, id, job.model_dump_json())
        try:
            project_client.send(
                job,
                id=id,
                queue=task.queue_name,
                priority=_millpond_priority(task.priority),
                at=task.run_after,
                batch=task_result.record_id(id),
            )
        finally:
            task_result.close_record(project_client.store, id)
        result = framework.result_of(task, id, job, framework.TaskResultStatus.READY)
        framework.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task as it is now. Raises `TaskResultDoesNotExist`."""
        project_client = client()
        try:
            summary = record.read_summary(project_client.store, task_result.record_id(result_id))
            job = RunDjangoTask.model_validate_json(summary.description)
        except (UnknownBatch, ValueError):
            raise framework.TaskResultDoesNotExist(result_id) from None
        make_result = partial(framework.result_of, import_string(job.path), result_id, job)
        for result in record.read_results(project_client.store, summary.id, wait_ms=0, limit=1):
            if result.state is TaskState.SUCCEEDED:
                return make_result(framework.TaskResultStatus.SUCCESSFUL, **_success_fields(result.value))
            finished = datetime.fromtimestamp(int(result.position.partition("-")[0]) / 1000, UTC)
            error, worker = _read_task_error(result_id, result.error or str(result.state))
            failed = framework.TaskResultStatus.FAILED
            return make_result(failed, errors=[error], worker_ids=[worker], finished_at=finished)
        location = project_client.find(result_id)
        if location is not None and location.state is TaskState.RUNNING:
            return make_result(framework.TaskResultStatus.RUNNING, worker_ids=[location.process])
        return make_result(framework.TaskResultStatus.READY)


def _success_fields(returned: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `framework.result_of` for a task that succeeded.

    `returned` is what the handler `run_django_task` returned.
    """
    times = {name: datetime.fromtimestamp(returned[name], UTC) for name in ("started_at", "finished_at")}
    return {"value": returned["value"], "worker_ids": [returned["worker"]], **times}


def _read_task_error(task_id: str, error_line: str) -> tuple[Any, str]:
    """Return Django's error of a task that failed, and the name of its worker.

    Both are read from the task's dead letter. Without one, `error_line` is the traceback, and the worker is
    "".
    """
    trace, worker = error_line, ""
    project_client = client()
    location = project_client.find(task_id)
    if location is not None and location.letter is not None:
        for letter in read_dead_letters(project_client.store, location.queue, LetterFilter(task_id=task_id)):
            trace = letter.detail.get("traceback") or error_line
            worker = str(letter.detail.get("worker") or "")
    class_name = re.match(r"[\w.]+(?=:|$)", trace.strip().rpartition("\n")[2])
    path = class_name.group() if class_name else "Exception"
    if "." not in path:
        path = f"builtins.{path}"
    try:
        import_string(path)
    except ImportError:
        path = "builtins.Exception"
    return framework.TaskError(exception_class_path=path, traceback=trace), worker


def _millpond_priority(priority: int) -> int:
    """Return the priority in Millpond (0 is fetched first) for a priority in Django (100 is first)."""
    return 0 if priority > 0 else 3 if priority == 0 else 6 if priority >= -50 else 9
