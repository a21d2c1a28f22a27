"""A user's Celery application, on the transport that `CHANNEL_TRANSPORT` names, or on kombu's own.

Run by `celery -A channel_app worker`. Its tasks note their runs in the file `CHANNEL_NOTES`.
"""

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

app = Celery("channel_app", broker=os.environ.get("CHANNEL_BROKER"), set_as_current=False)
app.conf.update(
    broker_transport=os.environ.get("CHANNEL_TRANSPORT") or None,
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=20,
)


def note(*words: Any) -> None:
    """Add a line to the notes."""
    with Path(os.environ["CHANNEL_NOTES"]).open("a") as notes:
        notes.write(" ".join(map(str, words)) + "\n")


@app.task(name="channel.nap")
def nap(number: int, seconds: float) -> None:
    """Sleep, and note the start and the end."""
    note("start", number)
    time.sleep(seconds)
    note("end", number)


@app.task(name="channel.read")
def read(queue: str, count: int, waits: bool) -> None:
    """Read another queue by a SimpleQueue of kombu's, acknowledge each message, and note them."""
    with app.connection() as connection, connection.SimpleQueue(queue) as simple:
        got = []
        for _ in range(count):
            message = simple.get(timeout=5) if waits else simple.get_nowait()
            got.append(message.payload["n"])
            message.ack()
    note("read", *got)


@app.task(name="channel.ask_again", bind=True, max_retries=1)
def ask_again(self: Any, number: int) -> None:
    """Wait for a line 'go' in the notes, then ask for one retry, which ends at once."""
    note("try", number, self.request.retries)
    if self.request.retries:
        return
    while "go" not in Path(os.environ["CHANNEL_NOTES"]).read_text().split():
        time.sleep(0.05)
    note("asks again")
    raise self.retry(countdown=0)
