"""The request as dispatching sees it: the ways to start, answer and release a delivery."""

from typing import Any, Protocol

from millpond.broker.delivery import Delivery


class SlotRequest(Protocol):
    """A delivery on its way to a slot; worker/celery/request.py has the one that there is."""

    id: str
    delivery: Delivery
    #: When its handler started, seconds since 1970; None: it has not.
    time_start: float | None
    #: True once it was sent to a prefork child.
    in_child: bool
    #: True once it has ended, as by its release: its handler must not start.
    acknowledged: bool
    #: The hard and the soft time limit, seconds.
    limits: tuple[float | None, float | None]
    #: The chunk that it shares a child with, if any.
    chunk: Any

    @property
    def name(self) -> Any:
        """The task's name as people see it."""

    @property
    def kind(self) -> str:
        """The kind."""

    def may_start(self) -> bool:
        """True if it may still start."""

    def revoked(self) -> Any:
        """True if it was cancelled or has expired."""

    def run_in_thread(self) -> None:
        """Run it in the calling thread."""

    def release(self) -> None:
        """Release it."""

    def redeliver(self, exc_info: Any) -> None:
        """Redeliver it."""

    def undo_start(self) -> None:
        """Take back that a child has it."""

    def note_start(self, pid: int | None, time_accepted: float) -> None:
        """Note that its handler has started."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that its handler starts, and end it if that was asked for meanwhile."""

    def on_success(self, answer: Any) -> None:
        """Settle it by its slot's answer."""

    def on_failure(self, exc_info: Any) -> None:
        """Settle it after its slot was lost."""
