"""Kinds for the tests of the gateway: one that waits until it is cancelled, and a strict one."""

from datetime import date
from time import monotonic, sleep

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import handler


class Steps(Contract, kind="test.steps"):
    """Report one step of two, then go on until it is cancelled."""

    name: str


class Strict(Contract, kind="test.strict", strict=True):
    """Take a date, and no text for one."""

    day: date


@handler(Strict)
def strict(job: Strict, context: Context) -> str:
    """Return the date."""
    return job.day.isoformat()


@handler(Steps)
def steps(job: Steps, context: Context) -> str:
    """Take the step, and give up after a minute."""
    deadline = monotonic() + 60
    context.progress(1, 2)
    while monotonic() < deadline:
        context.checkpoint()
        sleep(0.02)
    raise TimeoutError("nobody cancelled")
