"""The kind `broker.act` (tests/kinds/broker_kinds.py): send its tasks, and read the notes that they write."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millpond.broker.connection import Store
from millpond.broker.outgoing import compose
from millpond.broker.publish import Accepted, publish


@dataclass(frozen=True)
class Note:
    """One line of the file: when a run began (`when` is `start`), or returned (`end`). `at` is Unix time."""

    when: str
    name: str
    at: float
    pid: int
    retries: int
    deliveries: int


def read_notes(file: Path, when: str = "start") -> list[Note]:
    """Return the notes of starts, or of ends, that are in the file so far. None if there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [note for note in (Note(**json.loads(line)) for line in lines) if note.when == when]


def read_names(file: Path, when: str = "start") -> list[str]:
    """Return the names of the tasks that were noted so far, in the order of the notes."""
    return [note.name for note in read_notes(file, when)]


def send_acts(
    store: Store,
    file: Path,
    *names: str,
    batch: str | None = None,
    expires_ms: int | None = None,
    **fields: Any,
) -> list[str]:
    """Send a task of each name, which notes its run in `file`, and return their ids.

    `fields` are further fields of each task.
    """
    messages = [
        compose(
            "broker.act",
            {"file": str(file), "name": name, **fields},
            queue="default",
            sent_at_ms=0,
            batch=batch,
            expires_ms=expires_ms,
        )
        for name in names
    ]
    assert all(isinstance(outcome, Accepted) for outcome in publish(store, messages))
    return [message.id for message in messages]
