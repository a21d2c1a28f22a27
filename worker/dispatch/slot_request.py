"""The request as dispatching sees it: the ways to start, answer and release a delivery."""

from typing import Any, Protocol

from millpond.broker.delivery import Delivery


class SlotRequest(Protocol):
    """A delivery on its way to a slot; worker/celery/request.py has the one that there is."""

    id: str
    delivery: Delivery
    #: True once it was sent to a prefork child.
    in_child: bool
    #: True once it was released or dropped: its handler must not start.
    let_go: bool
    #: The chunk that it shares a child with, if any.
    chunk: Any

    @property
    def name(self) -> Any:
        """The task's name as people see it."""

    @property
    def kind(self) -> str:
        """The kind."""

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The hard and the soft time limit, seconds."""

    def may_start(self) -> bool:
        """True if it may still start."""

    def revoked(self) -> Any:
        """True if it was cancelled or has expired."""

    def run_in_thread(self) -> None:
        """Run it in the calling thread."""

    def give_back(self) -> None:
        """Release it."""

    def hand_out_again(self, exc_info: Any) -> None:
        """Redeliver it."""

    def unaccept(self) -> None:
        """Take back that a child has it."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that its handler starts."""

    def on_success(self, answer: Any) -> None:
        """Settle it by its slot's answer."""

    def on_failure(self, exc_info: Any) -> None:
        """Settle it after its slot was lost."""
