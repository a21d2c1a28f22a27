"""A kind whose handler does nothing, for tasks whose life is counted."""

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import handler


class Nothing(Contract, kind="life.nothing"):
    """Do nothing."""

    n: int


@handler(Nothing)
def nothing(job: Nothing, context: Context) -> int:
    """Return the number that was sent."""
    return job.n
