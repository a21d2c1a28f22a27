"""An application as people have it: its settings, its tasks, and nothing of Millpond."""

import os
import signal
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

app = Celery("orders", broker=os.environ["ORDERS_BROKER"], backend=os.environ["ORDERS_BACKEND"])
app.conf.update(
    task_default_queue="default",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task
def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(time_limit=1)
def endless() -> None:
    while True:
        time.sleep(0.1)


@app.task
def reject() -> None:
    raise Reject("no such order", requeue=False)


@app.task(bind=True)
def headers(self: Task) -> dict[str, Any]:
    """Return what the task is told of itself."""
    request = self.request
    return {"eta": request.eta, "headers": request.headers, "info": request.delivery_info}
