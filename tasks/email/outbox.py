"""The interface by which the handler of campaigns sends further tasks."""

from collections.abc import Iterable
from typing import Protocol

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError


class CampaignOutbox(Protocol):
    """Sends tasks from a handler, without waiting for room in a queue."""

    def send_many(self, jobs: Iterable[tuple[str, Contract]]) -> int:
        """Send jobs with their task ids until the queue is full. Return the number of accepted tasks.

        A task with an id that was sent before counts as accepted.
        """

    def send_continuation(self, job: Contract, *, after_seconds: float) -> None:
        """Send a continuation of this task, which starts after this time at the earliest.

        It is accepted by a full queue, too: it takes the room of this task.
        """


def require_outbox(context: Context) -> CampaignOutbox:
    """Return the outbox of a context. Raises `FinalError` if it has none, as outside of a worker."""
    outbox: CampaignOutbox | None = getattr(context, "outbox", None)
    if outbox is None:
        raise FinalError("this task sends further tasks, which needs a Millpond worker: run it there")
    return outbox
