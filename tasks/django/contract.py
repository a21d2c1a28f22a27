"""The kind of a task of Django's own framework (`django.tasks`): a function by its path, with arguments."""

from typing import Any

from millpond.tasks.contract import Contract


class RunDjangoTask(Contract, kind="django.task"):
    """Run the task of Django's framework at the import path `path`. `priority` is Django's, -100 to 100."""

    path: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    priority: int = 0
    backend: str = "default"
    enqueued_at_ms: int | None = None
