"""Plain Celery tasks of an application of their own, as one that moves to Millpond has them."""

from typing import Any

from celery import Celery, shared_task
from celery.exceptions import Ignore

app = Celery("shop", broker="memory://")


@app.task(name="shop.divide")  # type: ignore[untyped-decorator]
def divide(a: int, b: int) -> float:
    return a / b


@shared_task(name="shop.ignored")  # type: ignore[untyped-decorator]
def ignored() -> None:
    raise Ignore


@app.task(name="shop.flaky", bind=True, max_retries=1, default_retry_delay=0)  # type: ignore[untyped-decorator]
def flaky(self: Any) -> None:
    try:
        raise OSError("the till is away")
    except OSError as error:
        raise self.retry(exc=error) from error
