"""The notes that the bodies of tests/kinds/broker_kinds.py write."""

import json
from dataclasses import dataclass
from pathlib import Path


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
