"""An application with settings for its transport: one URL for all, no prefetch, a broadcast."""

import os
import time
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.common import Broadcast

app = Celery("honoured", broker=os.environ["APP_BROKER"], backend=os.environ["APP_BROKER"])
app.conf.update(
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"health_check_interval": 1},
    task_queues=[Queue("celery"), Broadcast("everybody")],
)


@app.task
def occupy(key: str) -> str:
    """Occupy a slot until its key is set."""
    client: Any = app.backend.client
    client.incr("occupied")
    while not client.exists(key):
        time.sleep(0.05)
    return key


@app.task(ignore_result=True)
def heard() -> None:
    """Note that a broadcast arrived."""
    app.backend.client.incr("heard")
