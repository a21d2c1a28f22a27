"""The part of a request that dispatching needs: to start, settle and release a delivery."""

from typing import Any, Protocol

from millpond.broker.delivery import Delivery


class SlotRequest(Protocol):
    """A delivery on its way to a slot. worker/celery/request.py implements it."""

    id: str
    delivery: Delivery
    #: The time at which its handler started, seconds since 1970; None before that.
    time_start: float | None
    #: True once it was sent to a prefork child.
    in_child: bool
    #: True once it was settled or released: its handler must not start.
    acknowledged: bool
    #: The hard and the soft time limit, seconds.
    limits: tuple[float | None, float | None]
    #: The chunk that it shares a child with, if any.
    chunk: Any

    @property
    def name(self) -> Any:
        """The name of the task in logs and events."""

    @property
    def kind(self) -> str:
        """The kind."""

    def may_start(self) -> bool:
        """True if the task may still start."""

    def revoked(self) -> Any:
        """Return True if the task was cancelled or has expired, and settle it then. Celery calls it."""

    def run_in_thread(self) -> None:
        """Run the task in the calling thread."""

    def release(self) -> None:
        """Return the message to the head of its queue."""

    def redeliver(self, exc_info: Any) -> None:
        """Return the message to its queue, its delivery counted."""

    def forget_start(self) -> None:
        """Undo `record_start`, because a child will not run the task after all."""

    def record_start(self, pid: int | None, time_accepted: float) -> None:
        """Record that the handler started in process `pid` (at monotonic seconds)."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Record the start, publish its event, and end the task if that was requested meanwhile."""

    def on_success(self, result: Any) -> None:
        """Settle the delivery by the slot's result."""

    def on_failure(self, exc_info: Any) -> None:
        """Settle the delivery after its slot was lost."""
