"""Kinds for the tests of workers: one that waits at a gate until the test opens it, one with a secret."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep

from pydantic import Field

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import body


class Gate(Contract, kind="test.gate"):
    """Wait until `folder/name.open` is there; leave `name.started`, with the process id, and `name.done`."""

    folder: str
    name: str


class Hold(Gate, kind="test.hold"):
    """The same as a gate, under another kind: workers learn nothing of gates from it, such as their times."""


class Whisper(Contract, kind="test.whisper"):
    """A task with one public word and one hidden word."""

    aloud: str
    secret: str = Field(repr=False)


class Tell(Contract, kind="test.tell"):
    """Write down the counts of the batch that it follows, in `file`."""

    file: str


@body(Tell)
def tell(job: Tell, context: Context) -> None:
    """Write them as JSON, a line for each time it runs."""
    counts = asdict(context.batch_summary) if context.batch_summary else None
    with Path(job.file).open("a") as file:
        file.write(json.dumps(counts) + "\n")


@body(Hold)
@body(Gate)
def gate(job: Gate, context: Context) -> str:
    """Pass the gate, or give up after a minute."""
    folder, deadline = Path(job.folder), monotonic() + 60
    (folder / f"{job.name}.started").write_text(str(os.getpid()))
    while not (folder / f"{job.name}.open").exists():
        if monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        sleep(0.02)
    with (folder / f"{job.name}.done").open("a") as file:
        file.write(f"{context.id}\n")
    return job.name


@body(Whisper)
def whisper(job: Whisper, context: Context) -> int:
    """Do nothing with the secret."""
    return len(job.secret)
