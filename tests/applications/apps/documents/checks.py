"""The application's own checks, and documents that must not run."""

import json
import os
from typing import Any

from celery import Celery, chord
from paper import Document, app, consume, index, noted, refuse

found = consume.delay(Document("scan.pdf", {"tax"})).get(40)
failed = refuse.delay(Document("scan.pdf", set()))
error = failed.get(40, propagate=False)
counted = chord([consume.s(Document(str(n), set())) for n in range(3)])(index.s()).get(60)
children = [consume.delay(Document(str(n), set())).get(40).path for n in range(12)]


def foreign(serializer: str) -> Any:
    """Send a message that is not signed; return its state once messages sent after it have run."""
    stranger = Celery("stranger", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
    stranger.conf.task_serializer = serializer
    args = (Document("evil", set()),) if serializer == "pickle" else ({"path": "evil", "tags": []},)
    id = stranger.send_task("paper.consume", args).id
    for after in [consume.delay(Document("after", set())) for _ in range(8)]:
        after.get(40)
    return app.AsyncResult(id).state == "SUCCESS"


print(
    json.dumps(
        {
            "a dataclass there and back": [found.path, sorted(found.tags)],
            "an error": [failed.state, type(error).__name__, str(error)],
            "a chord of pickled signatures": counted,
            "`worker_max_tasks_per_child`": len(children),
            "`before_task_publish`": noted[0],
            "an unsigned pickle ran": foreign("pickle"),
            "unsigned JSON ran": foreign("json"),
        }
    )
)
