"""Declare the kind of the chaos run to Millpond."""

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError, RetryLater
from millpond.tasks.handlers import body
from tests.scenarios.chaos.work import Again, Failed, Run, work

#: The two queues of a run: the pools take from both, so that one process holds messages of two queues.
QUEUES = ("chaos", "calm")


class Work(Contract, kind="chaos.work", queue="chaos"):
    """Occupy a slot, retry some times, then succeed or fail."""

    n: int
    hold_seconds: float = 0.0
    retries: int = 0
    fails: bool = False


@body(Work, retries=10)
def do_work(job: Work, context: Context) -> int:
    """Run the task and tell the ledger."""
    try:
        return work(Run(context.id, context.retries, context.deliveries), **job.model_dump())
    except Again as again:
        raise RetryLater("it was told to", after_seconds=again.seconds) from None
    except Failed as failed:
        raise FinalError(str(failed)) from None
