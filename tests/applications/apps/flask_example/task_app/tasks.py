"""The tasks."""

import time
from typing import Any

from celery import Task, shared_task
from flask import current_app


@shared_task(ignore_result=False)
def add(a: int, b: int) -> int:
    return a + b


@shared_task()
def block() -> None:
    time.sleep(0.1)


@shared_task(bind=True, ignore_result=False)
def process(self: Task, total: int) -> dict[str, Any]:
    for i in range(total):
        self.update_state(state="PROGRESS", meta={"current": i + 1, "total": total})
        time.sleep(0.4)
    return {"current": total, "total": total}


@shared_task(ignore_result=False)
def greeting() -> str:
    return str(current_app.config["GREETING"])
