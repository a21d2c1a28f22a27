"""The tasks."""

from datetime import datetime
from typing import Any

from proj.celery import app


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def mul(x: int, y: int) -> int:
    return x * y


@app.task
def xsum(numbers: Any) -> int:
    return sum(numbers)


@app.task(bind=True)
def when(self: Any) -> str:
    return f"{self.app.conf.timezone} {self.app.now().utcoffset()} {isinstance(datetime.now(), datetime)}"


@app.task(bind=True)
def info(self: Any) -> list[Any]:
    return [self.app.main, self.name, self.request.retries, self.app.conf.result_expires]
