"""The examples of Celery's 'Next Steps' and of its example application."""

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta

from celery import chain, chord, group
from proj.celery import app
from proj.tasks import add, info, mul, when, xsum

began = time.monotonic()
due = add.apply_async((1, 1), eta=app.now() + timedelta(seconds=1)).get(60)
waited = time.monotonic() - began
control = app.control.inspect(timeout=15, limit=1)
called = subprocess.run(
    [sys.executable, "-m", "celery", "-A", "proj", "call", "proj.tasks.mul", "--args=[6, 7]"],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
)
id = called.stdout.strip().splitlines()[-1]
print(
    json.dumps(
        {
            "`delay`": add.delay(4, 4).get(60),
            "a partial in a chain": chain(add.s(4, 4) | mul.s(8))().get(60),
            "a chain by `|`": (add.s(4, 4) | mul.s(8))().get(60),
            "a group, then a partial": group(add.s(i) for i in range(5))(10).get(60),
            "a chord": chord((add.s(i, i) for i in range(10)), xsum.s())().get(60),
            "a group into a task": (group(add.s(i, i) for i in range(10)) | xsum.s())().get(60),
            "an `eta` in the application's time zone": [due, 0.9 <= waited < 30],
            "`timezone`": when.delay().get(60),
            "the application a task sees": info.delay().get(60),
            "`inspect registered`": "proj.tasks.mul" in next(iter(control.registered().values())),
            "`celery call`": app.AsyncResult(id).get(60),
            "a date among the arguments": add.delay(1, datetime(2026, 1, 1).year).get(60),
        }
    )
)
