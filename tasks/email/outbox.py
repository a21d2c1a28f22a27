"""Say what the campaign body asks of whoever lets it send: mails while there is room, and itself again."""

from collections.abc import Iterable
from typing import Protocol

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError


class Outbox(Protocol):
    """Send tasks from inside a task, without ever waiting for room in a queue."""

    def send_many(self, jobs: Iterable[tuple[str, Contract]]) -> int:
        """Send jobs by their ids until one is refused for want of room; return how many were taken.

        A job whose id was sent before counts as taken.
        """

    def again(self, job: Contract, *, after_seconds: float) -> None:
        """Send a continuation of this task, whatever the bound of its queue: this task leaves it."""


def outbox_of(context: Context) -> Outbox:
    """Return the outbox that the worker gave the body; raise `FinalError` where there is none."""
    outbox: Outbox | None = getattr(context, "outbox", None)
    if outbox is None:
        raise FinalError("this task sends further tasks, and nothing here lets it: run a Millpond worker")
    return outbox
