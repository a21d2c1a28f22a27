"""The idle timeout of request bodies. All have the same timeout, so one timer serves them all.

A timer for each request would be expensive: nearly all timers are cancelled at once, and a cancelled timer
stays in the event loop's heap until its time.
"""

import asyncio

from starlette.types import Message, Receive


class IdleTimeout:
    """The same timeout for every wait of one event loop."""

    def __init__(self, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        #: The running waits and when each began. The first is the first to time out.
        self._waits: dict[asyncio.Timeout, float] = {}
        self._timer_is_set = False

    async def receive(self, receive: Receive) -> Message:
        """Return the next message of a request. Raises `TimeoutError` when none comes in time."""
        async with asyncio.timeout(None) as timeout:
            self._waits[timeout] = asyncio.get_running_loop().time()
            if not self._timer_is_set:
                self._set_timer()
            try:
                return await receive()
            finally:
                self._waits.pop(timeout, None)

    def _set_timer(self) -> None:
        """Set the timer to the timeout of the first wait, if there is one."""
        began_at = next(iter(self._waits.values()), None)
        self._timer_is_set = began_at is not None
        if began_at is not None:
            asyncio.get_running_loop().call_at(began_at + self.idle_seconds, self._end_waits)

    def _end_waits(self) -> None:
        """End the waits that have reached the timeout, and set the timer for the next one."""
        now = asyncio.get_running_loop().time()
        for timeout, began_at in list(self._waits.items()):
            if began_at + self.idle_seconds > now:
                break
            del self._waits[timeout]
            timeout.reschedule(now)
        self._set_timer()
