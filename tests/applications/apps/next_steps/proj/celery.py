"""The application, which `celery -A proj` finds by its name."""

import os

from celery import Celery

app = Celery(
    "proj",
    broker=os.environ["APP_BROKER"],
    backend=os.environ["APP_RESULTS"],
    include=["proj.tasks"],
)
app.conf.update(result_expires=3600, timezone="Asia/Tokyo")

if __name__ == "__main__":
    app.start()
