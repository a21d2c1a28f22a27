"""Kinds that fork and start processes."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import handler


class Note(Contract, kind="forking.note"):
    """Write down that `name` runs, a line in `file`."""

    file: str
    name: str


class Fork(Note, kind="forking.fork"):
    """Fork; the child comes back from the handler in the way of `how`. Returns the child's exit code."""

    how: Literal["exit", "raise", "return"]


class Family(Contract, kind="forking.family"):
    """Start a child, one in a session of its own with a child, and a daemon; note their ids, and wait."""

    file: str
    seconds: float = 60.0


class Daemon(Contract, kind="forking.daemon"):
    """Start a daemon that ends at once; returns the exit code of a child that ended long before."""

    file: str


@handler(Note)
def note(job: Note, context: Context) -> None:
    """Write the line."""
    with Path(job.file).open("a") as file:
        file.write(job.name + "\n")
    time.sleep(0.01)


@handler(Fork)
def fork(job: Fork, context: Context) -> int:
    """Fork, and wait for the child."""
    note(job, context)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if job.how == "exit":
        sys.exit(3)
    if job.how == "raise":
        raise ValueError("in the child")
    return 7


@handler(Family)
def family(job: Family, context: Context) -> None:
    """Start the child processes, and wait."""
    child = subprocess.Popen(["sleep", "300"])
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 300 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert leader.stdout is not None
    pids = [child.pid, leader.pid, int(leader.stdout.readline()), _daemon(300)]
    Path(job.file + ".new").write_text("\n".join(map(str, pids)))
    Path(job.file + ".new").rename(job.file)
    for _ in range(2):
        with suppress(Exception):  # its soft time limit
            time.sleep(job.seconds)


@handler(Daemon)
def daemon(job: Daemon, context: Context) -> int:
    """Start the daemon and the child, and wait until both have ended."""
    child = subprocess.Popen(["sh", "-c", "exit 9"])
    with Path(job.file).open("a") as file:
        file.write(f"{_daemon(0)}\n")
    time.sleep(0.5)
    return child.wait()


def _daemon(seconds: float) -> int:
    """Fork twice, with a session of its own; return the id of the daemon."""
    reading, writing = os.pipe()
    if not (first := os.fork()):
        os.setsid()
        if not os.fork():
            os.write(writing, str(os.getpid()).encode())
            time.sleep(seconds)
        os._exit(0)
    os.waitpid(first, 0)
    pid = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    return pid
