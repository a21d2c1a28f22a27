"""Millpond in a Django project: its client, sending when the transaction commits, and Django's own tasks.

    INSTALLED_APPS = [..., "millpond.django"]           # manage.py millpond worker POOL
    MILLPOND = {"broker_url": "redis://broker/0"}       # any setting of Millpond's
    TASKS = {"default": {"BACKEND": "millpond.django.MillpondBackend"}}

Needs Django; with a Django before 6.0, `django-tasks` for the backend.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
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
from millpond.broker.inspect.dead_letters import read_dead_letters
from millpond.broker.task_state import TaskState
from millpond.producer.client import Client
from millpond.producer.message import Sendable
from millpond.tasks.django import framework
from millpond.tasks.django.contract import RunDjangoTask


@cache
def client() -> Client:
    """Return the project's client: one for the process, connected at its first call."""
    return Client(settings=framework.settings())


def send_on_commit(what: Sendable, *, using: str | None = None, **options: Any) -> None:
    """Send a task when the present transaction commits, at once without one, never if it is rolled back.

    `options` are those of `Client.send`. `using` names the database. The transaction has committed when the
    task is sent: an error of the broker, `QueueFull` among them, reaches the caller and undoes nothing.
    """
    transaction.on_commit(partial(client().send, what, **options), using=using)


class MillpondBackend(BaseTaskBackend):
    """A backend of Django's tasks framework. A Django queue has the name of its Millpond queue.

    Priorities above 0 go first, then 0, then those down to -50, then the others. A result is kept for a day
    after the task ended.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task, and return its result as it is now. Raises the errors of `Client.send`."""
        self.validate_task(task)
        ours, id = client(), str(uuid4())
        job = RunDjangoTask(
            path=task.module_path,
            args=framework.normalize_json(list(args)),
            kwargs=framework.normalize_json(dict(kwargs)),
            priority=task.priority,
            backend=self.alias,
            enqueued_at_ms=ours.now_ms(),
        )
        task_result.open_record(ours.store, id, job.model_dump_json())
        try:
            ours.send(
                job,
                id=id,
                queue=task.queue_name,
                priority=_millpond_priority(task.priority),
                at=task.run_after,
                batch=task_result.record_id(id),
            )
        finally:
            task_result.close_record(ours.store, id)
        result = framework.result_of(task, id, job, framework.TaskResultStatus.READY)
        framework.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task. Raises `TaskResultDoesNotExist`."""
        ours = client()
        try:
            summary = record.summary(ours.store, task_result.record_id(result_id))
            job = RunDjangoTask.model_validate_json(summary.description)
        except (UnknownBatch, ValueError):
            raise framework.TaskResultDoesNotExist(result_id) from None
        as_result = partial(framework.result_of, import_string(job.path), result_id, job)
        for ended in record.results(ours.store, summary.id, wait_ms=0, limit=1):
            if ended.state is TaskState.SUCCEEDED:
                return as_result(framework.TaskResultStatus.SUCCESSFUL, **_read_value(ended.value))
            finished = datetime.fromtimestamp(int(ended.position.partition("-")[0]) / 1000, UTC)
            about, worker = _task_error(result_id, ended.error or str(ended.state))
            failed = framework.TaskResultStatus.FAILED
            return as_result(failed, errors=[about], worker_ids=[worker], finished_at=finished)
        place = ours.find(result_id)
        runs = place is not None and place.state is TaskState.RUNNING
        status = framework.TaskResultStatus.RUNNING if runs else framework.TaskResultStatus.READY
        return as_result(status, worker_ids=[place.process] if runs and place is not None else [])


def _read_value(value: dict[str, Any]) -> dict[str, Any]:
    """Return the value of a task that succeeded, as Django's result has it."""
    times = {name: datetime.fromtimestamp(value[name], UTC) for name in ("started_at", "finished_at")}
    return {"value": value["value"], "worker_ids": [value["worker"]], **times}


def _task_error(id: str, line: str) -> tuple[Any, str]:
    """Return Django's error of a task that failed, and its worker: by its dead letter, if it is there."""
    trace, worker = line, ""
    ours = client()
    place = ours.find(id)
    if place is not None and place.letter is not None:
        for letter in read_dead_letters(ours.store, place.queue, task_id=id):
            trace = letter.detail.get("traceback") or line
            worker = str(letter.detail.get("worker") or "")
    named = re.match(r"[\w.]+(?=:|$)", trace.strip().rpartition("\n")[2])
    path = named.group() if named else "Exception"
    if "." not in path:
        path = f"builtins.{path}"
    with suppress(ImportError):
        import_string(path)
        return framework.TaskError(exception_class_path=path, traceback=trace), worker
    return framework.TaskError(exception_class_path="builtins.Exception", traceback=trace), worker


def _millpond_priority(priority: int) -> int:
    """Return Millpond's priority (0 first) of a priority of Django's (100 first)."""
    return 0 if priority > 0 else 3 if priority == 0 else 6 if priority >= -50 else 9
