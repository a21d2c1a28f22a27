"""An application that moves: each run of its task is one line of a ledger in Redis."""

import os
import time

import redis
from celery import Celery

app = Celery("moving", broker=os.environ["APP_BROKER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)
ledger = redis.Redis.from_url(os.environ["APP_RESULTS"], decode_responses=True)


@app.task(name="step")
def step(number: int, waits: bool = False) -> None:
    """Note the start of a run, and its end; in between, wait until the test lets it go on."""
    ledger.rpush("ledger:started", f"{number}")
    while waits and not ledger.exists("go"):
        time.sleep(0.05)
    ledger.rpush("ledger:ended", f"{number}")
