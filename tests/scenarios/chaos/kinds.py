"""The kind of a chaos run's tasks, as Millpond's workers have it."""

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError, RetryLater
from millpond.tasks.handlers import body
from tests.scenarios.chaos.work import Again, Failed, Run, work

#: The two queues of a run. The pools serve both, so that one process has messages of two queues in flight.
QUEUES = ("chaos", "calm")


class Work(Contract, kind="chaos.work", queue="chaos"):
    """Occupy a slot, retry some times, then succeed or fail."""

    n: int
    hold_seconds: float = 0.0
    retries: int = 0
    fails: bool = False


@body(Work, retries=10)
def do_work(job: Work, context: Context) -> int:
    """Do the work of the task, which writes to the ledger. Retry or fail as the task says."""
    try:
        return work(Run(context.id, context.retries, context.deliveries), **job.model_dump())
    except Again as again:
        raise RetryLater("it was told to", after_seconds=again.seconds) from None
    except Failed as failed:
        raise FinalError(str(failed)) from None
