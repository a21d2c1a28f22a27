"""Write and read metrics files. Each worker process and each prefork child writes one once a second.

The parent reads them: the supervisor those of worker processes, a worker process those of its children. The
files are in a folder beside the heartbeat files. If the disk is full, only the metrics are missing. They hold
no secret.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from typing import Any

from millpond.tasks.process.heartbeat_file import start_time
from millpond.tasks.process.paths import is_own_folder, open_private_folder, private_scratch_folder


class MetricsFile:
    """The metrics file of this process. No method raises."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._path = _metrics_folder() / str(pid)
        self._process = {"pid": pid, "parent": os.getppid(), "started": start_time(pid)}

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Replace the file by one with these metrics, atomically."""
        name, flags = self._path.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):
            folder = open_private_folder("metrics")
            try:
                with os.fdopen(os.open(f"{name}.new", flags, 0o600, dir_fd=folder), "w") as file:
                    file.write(dumps({**self._process, **metrics}))
                os.replace(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                os.close(folder)

    def remove(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_metrics(parent_pid: int) -> Iterator[dict[str, Any]]:
    """Yield the metrics of the living children of a process, and remove the files of dead processes."""
    with suppress(OSError):
        if not (is_own_folder(private_scratch_folder()) and is_own_folder(_metrics_folder())):
            return
        for path in sorted(_metrics_folder().iterdir()):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if path.suffix == ".new":  # being written, or left by a process that was killed meanwhile
                    if not start_time(int(path.stem)):
                        path.unlink()
                    continue
                metrics = loads(path.read_bytes())
                if start_time(metrics["pid"]) != metrics["started"]:
                    path.unlink()
                elif metrics["parent"] == parent_pid:
                    yield metrics


def _metrics_folder() -> Path:
    return private_scratch_folder() / "metrics"
