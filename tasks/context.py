"""The context of a running handler: its task, the request to stop, and its report of progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millpond.tasks.errors import Cancelled

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary
    from millpond.broker.message import Message


@dataclass(frozen=True)
class Context:
    """The values and services that a handler gets beside its contract. The defaults suit a call in a test.

    `id` is the task's id, the same in all its runs. `retries` is the number of earlier runs that raised
    `RetryLater`. `deliveries` is the number of deliveries of the message, this one included.
    """

    id: str = "by-hand"
    kind: str = ""
    retries: int = 0
    deliveries: int = 1
    batch: str | None = None
    is_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    report: Callable[[int, int | None], None] = field(default=lambda _done, _total: None, repr=False)
    mark_call: Callable[[str, int], AbstractContextManager[None]] = field(
        default=lambda _peer, _items: nullcontext(), repr=False
    )
    #: For the callback of a batch (`then=`): the counts of the batch at its completion.
    batch_summary: "Summary | None" = None
    #: Sends further tasks for a handler; None outside a worker.
    outbox: Any = field(default=None, repr=False)
    #: The message itself, with its headers; None if the handler was called by hand.
    message: "Message | None" = field(default=None, repr=False)
    #: The name of the worker process that runs the task, or "caller".
    worker: str = ""
    #: Objects that middleware passes to the handler: a database session, a tenant.
    state: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """True if this task was cancelled after its start."""
        return self.is_cancelled()

    def checkpoint(self) -> None:
        """Raise `Cancelled` if this task was cancelled after its start."""
        if self.cancelled:
            raise Cancelled(f"task {self.id} was cancelled while it ran")

    def calling(self, peer: str, *, items: int = 1) -> AbstractContextManager[None]:
        """Mark a call of a dependency, as in `with context.calling("crm", items=len(rows)):`.

        `millpond why` then shows the dependency by this name. From calls with different numbers of items it
        also computes the cost of a call and of an item. Nothing else depends on the mark.
        """
        return self.mark_call(peer, items)

    def progress(self, done: int, total: int | None = None) -> None:
        """Report that `done` of `total` units are done, in any unit. Calls are cheap: only a few are sent."""
        self.report(done, total)
