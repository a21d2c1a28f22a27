"""Have the event loop settle what slots have finished, several deliveries at a time."""

from collections.abc import Callable
from threading import main_thread
from typing import Any

from millpond.broker.consume.in_flight import Holder
from millpond.broker.delivery import Delivery
from millpond.broker.outcomes import Outcome
from millpond.worker.report.tracing import settling

#: So much may be finished and not sent to the broker before threads wait. Each slot may finish one more by
#: then: no more than slots + 16 finished tasks run again after a kill, however many were fetched.
AHEAD = 16

#: After how long a thread that is far ahead looks again whether the pool ends, in seconds.
LOOK_SECONDS = 0.05


class Settler:
    """Pass on what slots finish to the thread that settles it.

    `hub` is the event loop; without one, as with greenlets, each delivery is settled where it ends.
    """

    def __init__(
        self, holder: Holder, settle: Callable[[], None], hub: Any, settle_now: Callable[[], None]
    ) -> None:
        self._holder = holder
        self._settle = settle
        self._settle_now = settle_now
        self.hub = hub
        self._asked = False

    def begin_anew(self) -> None:
        """Ask the event loop again: what it was asked may have been lost with its connection."""
        self._asked = False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery soon; from any thread. While the pool drains there is no loop: settle it here."""
        span = settling(delivery)
        if span is not None:
            delivery.on_settled = span.end
        self._holder.finish(delivery, outcome)
        if self._holder.draining:
            self._settle_now()
        elif self.hub is None:
            self._settle()
        elif not self._asked:
            self._asked = True
            self.hub.call_soon(self._settle_all)

    def let_catch_up(self) -> None:
        """Wait while much is finished that the event loop has not sent to the broker.

        Threads with short tasks would keep the interpreter from it until nothing is left to run; and while
        the broker is away they would finish all that was fetched.
        """
        caught_up = self._holder.caught_up
        while self._is_far_ahead:
            caught_up.clear()
            if self._is_far_ahead:
                caught_up.wait(LOOK_SECONDS)

    @property
    def _is_far_ahead(self) -> bool:
        if self.hub is None or self._holder.unsettled_count < AHEAD:
            return False
        return not self._holder.draining and main_thread().is_alive()

    def _settle_all(self) -> None:
        self._asked = False
        self._settle()
        if self._holder.unsettled_count < AHEAD:
            self._holder.caught_up.set()
