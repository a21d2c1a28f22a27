"""A kind for the tests of the gateway: it tells how far it got, and waits until it is told to stop."""

from time import monotonic, sleep

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import body


class Steps(Contract, kind="test.steps"):
    """Report one step of two, then go on until somebody cancels."""

    name: str


@body(Steps)
def steps(job: Steps, context: Context) -> str:
    """Take the step, and give up after a minute."""
    deadline = monotonic() + 60
    context.progress(1, 2)
    while monotonic() < deadline:
        context.checkpoint()
        sleep(0.02)
    raise TimeoutError("nobody cancelled")
