"""Pass finished deliveries to the event loop, which sends several outcomes in one call."""

from collections.abc import Callable
from threading import main_thread
from typing import Any

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery
from millpond.broker.outcomes import Outcome

#: So much may be finished and not sent to the broker before threads wait. Each slot may finish one more by
#: then: no more than slots + 16 finished tasks run again after a kill, however many were fetched.
AHEAD = 16

#: After how long a thread that is far ahead looks again whether the pool ends, in seconds.
LOOK_SECONDS = 0.05


class Completer:
    """Passes finished deliveries on, from any thread.

    `hub` is the event loop; without one, as with greenlets, the next call sends the finished ones.
    `settle_now` sends at once: while the pool drains there is no loop.
    """

    def __init__(self, in_flight: InFlightMessages, hub: Any, settle_now: Callable[[], None]) -> None:
        self.hub = hub
        self._in_flight = in_flight
        self._settle_now = settle_now
        self._asked = False

    def reset(self) -> None:
        """Forget that the event loop was asked: its connection may have been lost with the request."""
        self._asked = False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery soon."""
        in_flight = self._in_flight
        in_flight.finished.append((delivery, outcome))
        if in_flight.draining:
            self._settle_now()
        elif self.hub is not None and not self._asked:
            self._asked = True
            self.hub.call_soon(self._wake)

    def wait_for_backlog(self) -> None:
        """Wait while much is finished that the event loop has not sent to the broker.

        Threads with short tasks would keep the interpreter from it until nothing is left to run; and while
        the broker is away they would finish all that was fetched.
        """
        in_flight = self._in_flight
        unsent = len(in_flight.finished) + sum([len(each.outcomes) for each in in_flight.leases.values()])
        if unsent < AHEAD or self.hub is None:
            return
        while in_flight.unsettled_count >= AHEAD and self._goes_on:
            in_flight.caught_up.clear()
            if in_flight.unsettled_count >= AHEAD:
                in_flight.caught_up.wait(LOOK_SECONDS)

    @property
    def _goes_on(self) -> bool:
        return not self._in_flight.draining and main_thread().is_alive()

    def _wake(self) -> None:
        """Plan a send of the finished deliveries a moment later; runs in the loop."""
        self._asked = False
        fetcher = self._in_flight.fetcher
        if fetcher is not None:  # else the next one does it first of all
            fetcher.wake()
