"""Cut off who sends nothing for too long, with one timer for all, since all may wait equally long.

A timer a request would be most of what the wait for its body costs: nearly all are called off at once, and
lie among the event loop's for as long as they would have run.
"""

import asyncio

from starlette.types import Message, Receive


class Idle:
    """Bound waits of one event loop to so many seconds each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # In the order in which they began, so the first is the first to run out.
        self._waiting: dict[asyncio.Timeout, float] = {}
        self._watches = False

    async def receive(self, receive: Receive) -> Message:
        """Return the next message of a request. Raises `TimeoutError` when none comes in time."""
        async with asyncio.timeout(None) as limit:
            self._waiting[limit] = asyncio.get_running_loop().time()
            if not self._watches:
                self._watch()
            try:
                return await receive()
            finally:
                self._waiting.pop(limit, None)

    def _watch(self) -> None:
        """Look again when the wait that began first would run out."""
        began = next(iter(self._waiting.values()), None)
        self._watches = began is not None
        if began is not None:
            asyncio.get_running_loop().call_at(began + self.seconds, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit, began in list(self._waiting.items()):
            if began + self.seconds > now:
                break
            del self._waiting[limit]
            limit.reschedule(now)
        self._watch()
