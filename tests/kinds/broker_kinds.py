"""A kind for the tests of the broker: it notes its run and behaves as its fields ask, however badly."""

import asyncio
import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from celery.exceptions import Ignore, Reject, Retry

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError, RetryLater
from millpond.tasks.handlers import body

What = Literal[
    "note",
    "fail",
    "shout",
    "retry",
    "kill",
    "exit",
    "leave",
    "cancelled",
    "unspeakable",
    "retry by hand",
    "interrupt",
    "memory",
    "reject",
    "requeue",
    "ignore",
    "burn",
    "seize",
    "wait",
]


class Act(Contract, kind="broker.act"):
    """Note in `file` that `name` runs, hold the slot for `seconds`, then do as `what` names."""

    file: str
    name: str = ""
    what: What = "note"
    seconds: float = 0.0
    size: str = ""


class Base(BaseException):
    """An error that `except Exception` does not catch."""


class Unspeakable(Exception):
    """An error whose every method raises."""

    def __str__(self) -> str:
        raise RuntimeError("not to be said")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


@body(Act, retries=2, backoff_seconds=0.2)
def act(job: Act, context: Context) -> str:
    """Run the task's `what`."""
    _note(job, context, "start")
    if job.what == "burn":
        _burn(job.seconds)
    elif job.what == "seize":
        ctypes.PyDLL(None).sleep(int(job.seconds))  # lets no other thread of the process run meanwhile
    elif job.what == "wait":
        _wait_to_be_let_go(job)
    else:
        time.sleep(job.seconds)
    match job.what:
        case "fail":
            raise FinalError("the body was told to fail")
        case "shout":
            raise FinalError("x" * 10_000_000)
        case "retry":
            raise RetryLater("come again")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            raise SystemExit(3)
        case "leave":
            raise Base("nobody catches this")
        case "cancelled":
            raise asyncio.CancelledError
        case "unspeakable":
            raise Unspeakable
        case "retry by hand":
            raise Retry("nothing is sent by this")
        case "interrupt":
            raise KeyboardInterrupt
        case "memory":
            raise MemoryError
        case "reject":
            raise Reject("not mine", requeue=False)
        case "requeue":
            raise Reject("not now", requeue=context.deliveries < 3)
        case "ignore":
            raise Ignore
    _note(job, context, "end")
    return job.name


def _burn(seconds: float) -> None:
    """Occupy the interpreter as pure Python does, yielding at every switch interval."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1_000))


def _wait_to_be_let_go(job: Act) -> None:
    """Occupy the slot until there is a file `<file>.go`; a minute at most, or `seconds` if that is longer."""
    until = time.monotonic() + max(60, job.seconds)
    while not Path(f"{job.file}.go").exists() and time.monotonic() < until:
        time.sleep(0.02)


def _note(job: Act, context: Context, when: str) -> None:
    note = {"when": when, "name": job.name, "at": time.time(), "pid": os.getpid()}
    line = json.dumps({**note, "retries": context.retries, "deliveries": context.deliveries})
    with Path(job.file).open("a") as file:
        file.write(line + "\n")
