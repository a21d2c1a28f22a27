"""The idle timeout of request bodies: one timer for all of them, because all may wait equally long.

A timer a request would cost most of the wait for its body: nearly all are cancelled at once, and each stays
in the event loop's heap until it would have run.
"""

import asyncio

from starlette.types import Message, Receive


class IdleTimeout:
    """The same timeout, in seconds, for every wait of one event loop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # Ordered by start: the first wait is the first to time out.
        self._started: dict[asyncio.Timeout, float] = {}
        self._timer_set = False

    async def receive(self, receive: Receive) -> Message:
        """Return the next message of a request. Raises `TimeoutError` when none comes in time."""
        async with asyncio.timeout(None) as timeout:
            self._started[timeout] = asyncio.get_running_loop().time()
            if not self._timer_set:
                self._set_timer()
            try:
                return await receive()
            finally:
                self._started.pop(timeout, None)

    def _set_timer(self) -> None:
        """Set the timer to the end of the first wait, if there is one."""
        started = next(iter(self._started.values()), None)
        self._timer_set = started is not None
        if started is not None:
            asyncio.get_running_loop().call_at(started + self.seconds, self._end_waits)

    def _end_waits(self) -> None:
        """End the waits that have reached the timeout."""
        now = asyncio.get_running_loop().time()
        for timeout, started in list(self._started.items()):
            if started + self.seconds > now:
                break
            del self._started[timeout]
            timeout.reschedule(now)
        self._set_timer()
