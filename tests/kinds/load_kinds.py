"""A kind for loads: it writes down that it ran, and takes as long as a file says."""

import os
import time
from functools import lru_cache
from pathlib import Path

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import body


class Paced(Contract, kind="load.paced"):
    """Run for as many seconds as `folder/pace` says now, and note the start in `folder/ran-<process>`."""

    folder: str


@lru_cache(maxsize=4)
def _seconds(path: Path, _every_tenth: int) -> float:
    return float(path.read_text())


@lru_cache(maxsize=4)
def _notes(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@body(Paced)
def paced(job: Paced, context: Context) -> None:
    """Note and wait."""
    folder, now = Path(job.folder), time.time()
    os.write(_notes(folder / f"ran-{os.getpid()}"), f"{context.id} {now:.4f}\n".encode())
    time.sleep(_seconds(folder / "pace", int(now * 10)))
