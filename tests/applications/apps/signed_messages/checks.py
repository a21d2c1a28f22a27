"""The application's own checks, and an unsigned message that must not run."""

import json
import os

from celery import Celery, chain, group
from vault import add, again, app


def unsigned() -> bool:
    """True if an unsigned message ran."""
    stranger = Celery("stranger", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
    with stranger.connection_for_write() as connection:
        id = stranger.send_task("vault.add", (1, 1), serializer="json", connection=connection).id
    for after in [add.delay(1, 1) for _ in range(8)]:
        after.get(60)
    return app.AsyncResult(id).state == "SUCCESS"


print(
    json.dumps(
        {
            "a signed task": add.delay(2, 3).get(60),
            "a signed chain": chain(add.s(1, 1), add.s(2))().get(60),
            "a signed group": group(add.s(n, n) for n in range(3))().get(60),
            "a retry signs again": again.delay(2).get(60),
            "an ETA": add.apply_async((1, 2), countdown=0.5).get(60),
            "unsigned JSON ran": unsigned(),
        }
    )
)
