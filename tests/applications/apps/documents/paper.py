"""A document-management system: pickled messages, signed with the installation's secret, and nothing else."""

import hashlib
import hmac
import os
import pickle
from dataclasses import dataclass
from typing import Any

from celery import Celery, Task, signals
from kombu.serialization import register

SECRET = b"the installation's secret"


def dumps(value: Any) -> bytes:
    """Return a pickle behind its signature."""
    data = pickle.dumps(value)
    return hmac.new(SECRET, data, hashlib.sha256).digest() + data


def loads(data: Any) -> Any:
    """Return the pickled object if the signature is ours."""
    signature, pickled = bytes(data[:32]), bytes(data[32:])
    if not hmac.compare_digest(signature, hmac.new(SECRET, pickled, hashlib.sha256).digest()):
        raise ValueError("the signature is not ours")
    return pickle.loads(pickled)


register("signed-pickle", dumps, loads, content_type="application/x-signed-pickle", content_encoding="binary")
app = Celery("paper", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
app.conf.update(
    task_serializer="signed-pickle",
    result_serializer="signed-pickle",
    accept_content=["application/x-signed-pickle"],
    result_accept_content=["application/x-signed-pickle"],
    task_track_started=True,
    result_extended=True,
    worker_max_tasks_per_child=5,
    task_default_queue="celery",
)


@dataclass
class Document:
    """A file to take in."""

    path: str
    tags: set[str]


class ProgressTask(Task):
    """A base class that counts its starts."""

    abstract = True
    starts = 0

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        type(self).starts += 1


@app.task(bind=True, base=ProgressTask)
def consume(self: ProgressTask, document: Document) -> Document:
    self.update_state(state="STARTED", meta={"path": document.path})
    return Document(document.path.upper(), document.tags | {"inbox", f"starts-{min(self.starts, 1)}"})


@app.task
def index(documents: list[Document]) -> int:
    return len(documents)


@app.task
def refuse(document: Document) -> None:
    raise LookupError(f"{document.path} is a duplicate")


noted: list[str] = []


@signals.before_task_publish.connect
def before(sender: str = "", **kwargs: Any) -> None:
    noted.append(sender)
