"""A stock Celery application on Millpond's transport: `celery -A stock_app worker`, with `STOCK_URL` set."""

import os
import time
from pathlib import Path

from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_URL"], set_as_current=False)
app.conf.update(
    broker_transport="millpond.broker.transport:Transport",
    task_acks_late="STOCK_EARLY" not in os.environ,
    task_ignore_result=True,
    task_default_queue="default",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=int(os.environ.get("STOCK_MULTIPLIER", "4")),
)


@app.task(name="stock.hold")
def hold(file: str, name: str, seconds: float | None) -> None:
    """Note the start in a file, and hold the slot for so long; None: until the file `FILE.go` is there."""
    with Path(file).open("a") as notes:
        notes.write(f"{name} {time.time()}\n")
    while seconds is None and not Path(f"{file}.go").exists():
        time.sleep(0.01)
    time.sleep(seconds or 0)
