"""Have the event loop settle what slots have finished, several deliveries at a time."""

import threading
from collections.abc import Callable
from typing import Any

from broker.holding import Holder

#: So much may be finished and not settled before threads wait. The event loop asks for the next messages
#: while there are some left to run, and a kill finds few that run again.
AHEAD = 12

#: How long a thread that is far ahead lets the event loop catch up, in seconds.
CATCH_UP_SECONDS = 0.05


class Settler:
    """Pass on what slots finish to the thread that settles it.

    `hub` is the event loop; without one, as with greenlets, each delivery is settled where it ends.
    """

    def __init__(self, holder: Holder, settle: Callable[[], None], hub: Any) -> None:
        self._holder = holder
        self._settle = settle
        self._hub = hub
        self._asked = False
        self._noted = threading.Event()

    def finish(self, tag: str) -> None:
        """Settle a delivery as it was noted, soon; from any thread."""
        self._holder.finish(tag)
        if self._hub is None:
            self._settle()
        elif not self._asked:
            self._asked = True
            self._noted.clear()
            self._hub.call_soon(self._settle_all)

    def let_catch_up(self) -> None:
        """Wait for the event loop where much is finished that it has not settled.

        Threads with short tasks would keep the interpreter from it until nothing is left to run. The next
        fetch goes out while there is, and a kill finds few finished tasks that run again.
        """
        if self._holder.finished_count >= AHEAD and self._hub is not None:
            self._noted.wait(CATCH_UP_SECONDS)

    def _settle_all(self) -> None:
        self._asked = False
        try:
            self._settle()
        finally:
            self._noted.set()
