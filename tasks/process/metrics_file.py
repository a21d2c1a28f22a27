"""Say what a worker process has done since it started, once a second, in a file that its supervisor reads.

The file lies beside the pulses (pulse.py) and is as little to be relied on: a full disk costs figures and
nothing else. It holds no secret.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from millpond.tasks.process.heartbeat_file import born, folder


class FiguresFile:
    """Be the file of this process; nothing is raised."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._path = _folder() / str(pid)
        self._about = {"pid": pid, "parent": os.getppid(), "born": born(pid)}

    def say(self, figures: Mapping[str, Any]) -> None:
        """Write the figures in place of the last ones."""
        beside = self._path.with_suffix(".new")
        with suppress(OSError):
            beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_text(json.dumps({**self._about, **figures}))
            beside.replace(self._path)

    def close(self) -> None:
        """Remove the file: the process ends."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def figures_of(parent: int) -> Iterator[dict[str, Any]]:
    """Yield what the processes of a supervisor said last; the file of one that has gone is removed."""
    with suppress(OSError):
        if folder().stat().st_uid != os.getuid():
            return
        for path in sorted(path for path in _folder().iterdir() if path.suffix != ".new"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(path.read_bytes())
                if born(said["pid"]) != said["born"]:
                    path.unlink()
                elif said["parent"] == parent:
                    yield said


def _folder() -> Path:
    return folder() / "figures"
