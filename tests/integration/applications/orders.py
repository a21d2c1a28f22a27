"""An application as people have it: its settings, its tasks, and nothing of Millpond."""

import os
import signal
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.schedules import crontab
from celery.signals import task_failure

app = Celery("orders", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
app.conf.update(
    task_default_queue="default",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_pool_start_method=os.environ.get("APP_START", "fork"),
    result_backend_always_retry="APP_ALWAYS_RETRY" in os.environ,
    task_routes={"orders.note": {"queue": "small"}},
)

if "APP_LEASE_SECONDS" in os.environ:
    app.conf.broker_transport_options = {"lease_seconds": float(os.environ["APP_LEASE_SECONDS"])}
if "APP_BEAT" in os.environ:
    app.conf.beat_schedule = {
        "tick": {"task": "orders.note", "schedule": 1.0, "args": ("tick",)},
        "rare": {"task": "orders.note", "schedule": crontab("30", "3", day_of_week="mon"), "args": ("rare",)},
    }


@task_failure.connect
def record_failure(sender: Task, exception: BaseException, **_: Any) -> None:
    """Count the failures of each task by the class of their error."""
    app.backend.client.hincrby("failures", f"{sender.name} {type(exception).__name__}")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def boom() -> None:
    raise ZeroDivisionError


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


@app.task
def block(seconds: float) -> None:
    """Block the loop of gevent, too, and note when it began and ended."""
    from gevent import monkey

    for line in ("began", "ended"):
        note.run(line)
        if line == "began":
            monkey.get_original("time", "sleep")(seconds)


@app.task
def note(text: str) -> None:
    with open(os.environ["APP_NOTES"], "a") as file:  # noqa: PTH123
        file.write(f"{text}\n")


@app.task(bind=True)
def headers(self: Task) -> Any:
    """Return the facts of the task that Millpond's context has."""
    return self.request.millpond


@app.task(bind=True)
def eta(self: Task) -> str | None:
    return self.request.eta


@app.task(bind=True)
def copier(self: Task, text: str) -> None:
    """Send another task with the headers of this one, as tracing by hand does."""
    note.apply_async((text,), headers=self.request.headers)
