"""The interface by which the campaign handler sends: mails while there is room, and itself again."""

from collections.abc import Iterable
from typing import Protocol

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError


class CampaignOutbox(Protocol):
    """Sends tasks from inside a task, and never waits for room in a queue."""

    def send_many(self, jobs: Iterable[tuple[str, Contract]]) -> int:
        """Send tasks, by id, until the queue is full. Return the number accepted.

        A task whose id was sent before counts as accepted.
        """

    def send_continuation(self, job: Contract, *, after_seconds: float) -> None:
        """Send a continuation of this task, beyond the bound of its queue, because this task leaves it."""


def outbox_of(context: Context) -> CampaignOutbox:
    """Return the outbox of a handler's context. Raises `FinalError` if the context has none."""
    outbox: CampaignOutbox | None = getattr(context, "outbox", None)
    if outbox is None:
        raise FinalError("this task sends further tasks, which needs a Millpond worker: run it there")
    return outbox
