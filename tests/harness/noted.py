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
    """One line of the file: `end` is noted by a body that came to its end, `start` by every run."""

    when: str
    name: str
    at: float
    pid: int
    retries: int
    deliveries: int


def notes(file: Path, when: str = "start") -> list[Note]:
    """Read the notes so far."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [note for note in (Note(**json.loads(line)) for line in lines) if note.when == when]


def names(file: Path, when: str = "start") -> list[str]:
    """Read the names of the noted tasks, in order."""
    return [note.name for note in notes(file, when)]


def send_acts(
    store: Store,
    file: Path,
    *names: str,
    batch: str | None = None,
    expires_ms: int | None = None,
    **fields: Any,
) -> list[str]:
    """Send a task of each name, which notes its run in `file`, with more fields; return their ids."""
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
