"""Give a running body what it may ask of its surroundings: who it is, whether to stop, how far it got."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millpond.tasks.errors import Cancelled

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary


def _never() -> bool:
    return False


def _unheard(done: int, total: int | None) -> None:
    """Drop a progress report that nobody asked for."""


@dataclass(frozen=True)
class Context:
    """What a body is given beside its contract; the defaults are those of a body called by hand, in a test.

    `id` is the task's, the same through retries and redeliveries; `retries` counts earlier runs that
    asked to be run again, `deliveries` how often the broker handed the message out (1: the first time).
    """

    id: str = "by-hand"
    kind: str = ""
    retries: int = 0
    deliveries: int = 1
    batch: str | None = None
    is_cancelled: Callable[[], bool] = field(default=_never, repr=False)
    report: Callable[[int, int | None], None] = field(default=_unheard, repr=False)
    #: The counts of the batch that this task follows (`then=`), as they were when the batch completed.
    batch_summary: "Summary | None" = None
    #: What a body that sends further tasks sends them by; None where nothing lets it.
    outbox: Any = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Say whether somebody asked this task to stop."""
        return self.is_cancelled()

    def checkpoint(self) -> None:
        """Stop here, with `Cancelled`, if somebody asked this task to."""
        if self.cancelled:
            raise Cancelled(f"task {self.id} was cancelled while it ran")

    def progress(self, done: int, total: int | None = None) -> None:
        """Report how far the body got, in units of its own; cheap to call often, sent at a bounded rate."""
        self.report(done, total)
