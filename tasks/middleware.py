"""Middleware: code that runs around sending, around executing, on an outcome, on a worker's start and stop.

A middleware overrides the methods it needs; what it does not override costs nothing. The first of a tuple is
the outermost.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond.broker.delivery import Delivery
    from millpond.broker.outcomes import Outcome
    from millpond.tasks.context import Context
    from millpond.tasks.contract import Contract


class Middleware:
    """Base of every middleware; each method does nothing of its own."""

    def around_sending(self, job: "Contract", headers: dict[str, Any], send_next: Callable[[], Any]) -> Any:
        """Send one task; return what `send_next` returns. `headers` (JSON) travel with its message."""
        del job, headers
        return send_next()

    def around_executing(
        self, job: Any, context: "Context", call_next: Callable[[Any, "Context"], Any]
    ) -> Any:
        """Run one task; return what `call_next` returns, and let pass what it raises.

        `context.message` has the headers. Called in the slot: in its thread, or in its prefork child.
        """
        return call_next(job, context)

    def on_outcome(self, delivery: "Delivery", outcome: "Outcome", seconds: float | None) -> None:
        """Note how a delivery ended, in the worker's process; `seconds` it ran, None: it did not."""

    def on_worker_start(self) -> None:
        """Prepare a worker process, before it takes its first message; also each prefork child."""

    def on_worker_stop(self) -> None:
        """Clean up as a worker process ends."""


def overriding(middleware: Sequence[Middleware], method: str) -> tuple[Middleware, ...]:
    """Return those that override a method, in order."""
    return tuple(
        each for each in middleware if getattr(type(each), method) is not getattr(Middleware, method)
    )
