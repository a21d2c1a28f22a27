"""A typical Celery application: its own settings, a base class of tasks, retries, results and canvas.

celery -A shop worker                  # stock
millpond worker --app shop default     # the same application on Millpond
"""

import os
from typing import Any

from celery import Celery, Task

URL = os.environ.get("SHOP_BROKER", "redis://localhost:6379/0")

app = Celery("shop", broker=URL, backend=URL)
app.conf.update(
    task_default_queue="default",
    task_annotations={"shop.price": {"max_retries": 5}},
    result_expires=3600,
    broker_transport_options={"visibility_timeout": 3600},
)


class Audited(Task):
    """A base class of tasks that writes each success to a file."""

    abstract = True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Append the task's name and result to the file that `SHOP_AUDIT` names, if it is set."""
        if audit := os.environ.get("SHOP_AUDIT"):
            with open(audit, "a") as file:  # noqa: PTH123 - as most applications write it
                file.write(f"{self.name} {retval}\n")


@app.task(base=Audited)
def add(x: int, y: int) -> int:
    """Return a sum."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """Return the sum of a list: the body of a chord."""
    return sum(numbers)


@app.task(bind=True)
def price(self: Task, item: str) -> int:
    """Return a price, after one retry: the shop's service is busy the first time."""
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return len(item)


@app.task(autoretry_for=(OSError,), max_retries=1, retry_backoff=0.1, retry_jitter=False)
def unreachable() -> None:
    """Fail for good after one retry."""
    raise OSError("no route to the shop")


@app.task(bind=True)
def progress(self: Task) -> str:
    """Set a custom state of the task, and return the state that the backend then has."""
    self.update_state(state="HALF", meta={"done": 1})
    return str(self.AsyncResult(self.request.id).state)


@app.task
def on_error(request: Any, error: Exception, _traceback: Any) -> None:
    """Append an error to the same file. It is the errback of tasks, their `link_error`."""
    if audit := os.environ.get("SHOP_AUDIT"):
        with open(audit, "a") as file:  # noqa: PTH123
            file.write(f"errback {error}\n")
