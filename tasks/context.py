"""The context of a running handler: which task it runs, whether to stop, how far it got."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millpond.tasks.errors import Cancelled

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary
    from millpond.broker.message import Message


def _never_cancelled() -> bool:
    return False


def _ignore_progress(done: int, total: int | None) -> None:
    """Drop a progress report. This is the default of a handler called by hand."""


def _ignore_call(_peer: str, _items: int) -> AbstractContextManager[None]:
    """Mark nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Context:
    """The values and services that a handler gets beside its contract. The defaults suit a call in a test.

    `id` is the task's, the same through retries and redeliveries. `retries` counts earlier runs that
    asked to be run again. `deliveries` counts how often the broker delivered the message (1: the first time).
    """

    id: str = "by-hand"
    kind: str = ""
    retries: int = 0
    deliveries: int = 1
    batch: str | None = None
    is_cancelled: Callable[[], bool] = field(default=_never_cancelled, repr=False)
    report: Callable[[int, int | None], None] = field(default=_ignore_progress, repr=False)
    mark_call: Callable[[str, int], AbstractContextManager[None]] = field(default=_ignore_call, repr=False)
    #: The counts of the batch that this task follows (`then=`), as they were when the batch completed.
    batch_summary: "Summary | None" = None
    #: Sends further tasks for a handler; None outside a worker.
    outbox: Any = field(default=None, repr=False)
    #: The message itself, with its headers; None if the handler was called by hand.
    message: "Message | None" = field(default=None, repr=False)
    #: The name of the worker process that runs it, or "caller".
    worker: str = ""
    #: For middleware, to hand things to the handler: a database session, a tenant.
    state: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """True if this task was asked to stop."""
        return self.is_cancelled()

    def checkpoint(self) -> None:
        """Raise `Cancelled` if this task was asked to stop."""
        if self.cancelled:
            raise Cancelled(f"task {self.id} was cancelled while it ran")

    def calling(self, peer: str, *, items: int = 1) -> AbstractContextManager[None]:
        """Mark a call of a dependency, as in `with context.calling("crm", items=len(rows)):`.

        `millpond why` then knows the dependency by this name, and from calls with different numbers of items
        the cost of a call beside its items. Nothing else depends on it.
        """
        return self.mark_call(peer, items)

    def progress(self, done: int, total: int | None = None) -> None:
        """Report how far the handler got, in its own units. Calls are cheap: few of them are sent."""
        self.report(done, total)
