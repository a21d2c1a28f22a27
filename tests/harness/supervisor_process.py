"""Run the supervisor of the pool `default`, as `millpond worker` does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millpond.tasks.settings import Settings, child_environment


def start_supervisor(settings: Settings, folder: Path) -> "subprocess.Popen[bytes]":
    """Start the supervisor, whose log is the file `log` in `folder`; return it once its workers are ready."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-P", "-m", "millpond.worker.supervise.supervisor", "default"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*argv, "--ready-fd", str(writing)],
            env=child_environment(settings),
            pass_fds=[writing],
            stdout=log,
            stderr=log,
        )
    os.close(writing)
    with os.fdopen(reading) as said:
        if said.readline() != "ready\n":
            process.kill()
            process.wait()
            raise AssertionError((folder / "log").read_text())
    return process


@contextmanager
def supervised(settings: Settings, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the supervisor for the length of a block."""
    process = start_supervisor(settings, folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)
