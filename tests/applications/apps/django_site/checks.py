"""The application's own checks."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_project.settings")
django.setup()

from celery import chord, group  # noqa: E402
from demoapp import tasks  # noqa: E402
from demoapp.models import Widget  # noqa: E402
from django.db import transaction  # noqa: E402
from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: E402
from django_celery_results.models import TaskResult  # noqa: E402


def until(look: Any, seconds: float = 60) -> Any:
    """Return the value of `look` once it is true, or the last one when the time is up."""
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


widget = Widget.objects.create(name="old")
with transaction.atomic():
    tasks.rename_widget.delay_on_commit(widget.pk, "new")
renamed = until(lambda: Widget.objects.filter(pk=widget.pk, name="new").exists())
added = tasks.add.delay(2, 3)
value = added.get(60)
row = TaskResult.objects.get(task_id=added.id)
failed = tasks.error_task.delay()
failed.get(60, propagate=False)

every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
PeriodicTask.objects.create(interval=every, name="tick", task="demoapp.tasks.tick", args='["ticked"]')
beat = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "site_project", "beat", "--pidfile="],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
ticked = until(lambda: Widget.objects.filter(name="ticked").count() >= 2, 90)
beat.terminate()
beat.wait(30)
print(
    json.dumps(
        {
            "a task found by autodiscovery": value,
            "its row in django-celery-results": [
                row.status,
                row.task_name,
                row.result,
                row.worker is not None,
            ],
            "`delay_on_commit`, and the row it finds": renamed,
            "a failure after a retry": [
                failed.state,
                TaskResult.objects.get(task_id=failed.id).traceback.count("An error occurred") > 0,
            ],
            "a group": group(tasks.add.s(n, n) for n in range(3))().get(60),
            "a chord, counted in the database": chord([tasks.add.s(n, n) for n in range(3)])(
                tasks.xsum.s()
            ).get(60),
            "django-celery-beat's schedule": bool(ticked),
        }
    )
)
