"""The metrics file: each worker process writes its metrics once a second, for its supervisor to expose.

It lies beside the heartbeat files; a full disk costs the metrics and nothing else. It holds no secret.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from typing import Any

from millpond.tasks.process.heartbeat_file import folder, start_time


class MetricsFile:
    """The metrics file of this process; no method raises."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._path = _folder() / str(pid)
        self._process = {"pid": pid, "parent": os.getppid(), "started": start_time(pid)}

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Replace the metrics in the file."""
        temporary = self._path.with_suffix(".new")
        with suppress(OSError):
            temporary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(dumps({**self._process, **metrics}))
            temporary.replace(self._path)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_metrics(parent: int) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a supervisor's living processes; the files of dead processes are removed."""
    with suppress(OSError):
        if folder().stat().st_uid != os.getuid():
            return
        for path in sorted(path for path in _folder().iterdir() if path.suffix != ".new"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                metrics = loads(path.read_bytes())
                if start_time(metrics["pid"]) != metrics["started"]:
                    path.unlink()
                elif metrics["parent"] == parent:
                    yield metrics


def _folder() -> Path:
    return folder() / "metrics"
