"""Send the tasks of one producer of a run, and record the outcome of each in the ledger.

`python -m tests.scenarios.chaos.producing TRANSPORT SEED NUMBER TASKS RATE`, RATE in tasks a second. The
outcome is `taken`, `refused`, or `unknown` if the reply was lost. An unknown task is not sent again.
"""

import signal
import sys
import time
from contextlib import suppress
from datetime import timedelta
from threading import Event
from typing import Any, Protocol

from tests.scenarios.chaos import ledger
from tests.scenarios.chaos.mixture import Chunk, Planned, chunks


class Sending(Protocol):
    """A way to send chunks."""

    def send(self, chunk: Chunk) -> None:
        """Send the tasks of a chunk, and `note` the outcome of each."""


class ByClient:
    """Sends with Millpond's client, a chunk at a time."""

    def __init__(self) -> None:
        from millpond import Client

        self.client = Client()

    def send(self, chunk: Chunk) -> None:
        """Send the chunk, into a batch of its own if it is one."""
        from millpond.tasks.errors import BrokerAway, UnknownBatch
        from tests.scenarios.chaos.persistence import persistently

        batch = persistently(self.client.batch) if chunk.batch else None
        left = list(chunk.tasks)
        try:
            for outcome in self.client.send_each(map(self._message, chunk.tasks), batch=batch):
                task = left.pop(0)
                assert outcome.id == task.id
                note("taken" if hasattr(outcome, "duplicate_of") else "refused", task, batch and batch.id)
        except BrokerAway:
            for task in left:
                note("unknown", task, batch and batch.id)
        if batch:
            with suppress(UnknownBatch):  # opened in a moment that the broker has forgotten
                persistently(batch.close)
            ledger.write({"event": "batch", "id": batch.id})

    def _message(self, task: Planned) -> Any:
        from millpond import Message
        from tests.scenarios.chaos.kinds import Work

        delay = timedelta(seconds=task.delay_seconds) if task.delay_seconds else None
        work = Work.model_validate(task.kwargs)
        return Message(work, queue=task.queue, id=task.id, priority=task.priority, delay=delay)


class ByCelery:
    """Sends with a stock Celery client, task by task."""

    def __init__(self) -> None:
        from millpond.tasks.errors import QueueFull
        from tests.scenarios.chaos.stock import app

        self.app, self.full = app, QueueFull

    def send(self, chunk: Chunk) -> None:
        """Send the tasks of the chunk."""
        for task in chunk.tasks:
            try:
                self.app.send_task(
                    "chaos.work",
                    kwargs=task.kwargs,
                    task_id=task.id,
                    queue=task.queue,
                    priority=task.priority,
                    countdown=task.delay_seconds or None,
                    retry=False,
                )
            except self.full:
                note("refused", task, None)
            except Exception:
                note("unknown", task, None)
            else:
                note("taken", task, None)


_noted: list[dict[str, Any]] = []


def note(outcome: str, task: Planned, batch: str | None) -> None:
    """Keep the outcome of a task until `main` writes it to the ledger."""
    fields = {"id": task.id, "batch": batch, "fails": task.fails, "retries": task.retries}
    _noted.append({"event": outcome, **fields, "delay": task.delay_seconds, "noted_at": time.time()})


def main(transport: str, seed: int, number: int, tasks: int, rate: float) -> None:
    """Send all chunks at this rate, in tasks a second. SIGTERM ends it after the present chunk."""
    sending: Sending = ByClient() if transport == "millpond" else ByCelery()
    begun, sent = time.monotonic(), 0
    told_to_end = Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    for chunk in chunks(seed, number, tasks):
        if told_to_end.is_set():
            return
        begins = time.time()
        sending.send(chunk)
        ledger.write(*({**event, "sent_at": begins} for event in _noted))
        _noted.clear()
        ledger.advance(len(chunk.tasks))
        sent += len(chunk.tasks)
        time.sleep(max(0.0, begun + sent / rate - time.monotonic()))


if __name__ == "__main__":
    _, transport_, seed_, number_, tasks_, rate_ = sys.argv
    main(transport_, int(seed_), int(number_), int(tasks_), float(rate_))
