"""The threads in which the event loop calls the client, a bounded pool for each sort of call.

The event loop never waits for the broker, and a call that may take long keeps no short one waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from millpond.producer.gateway.send_batcher import CONCURRENT_CALLS

T = TypeVar("T")

LOOKUPS = 8
CANCELLATIONS = 8


class ThreadPools:
    """Threads for sends, streams, lookups and cancellations; `streams` bounds the concurrent streams."""

    def __init__(self, streams: int) -> None:
        self.sends = ThreadPoolExecutor(CONCURRENT_CALLS, "send")
        self.streams = ThreadPoolExecutor(streams, "stream")
        self._lookups = ThreadPoolExecutor(LOOKUPS, "lookup")
        self._cancellations = ThreadPoolExecutor(CANCELLATIONS, "cancel")

    async def lookup(self, call: Callable[[], T]) -> T:
        """Return the result of a call that takes a round trip or two."""
        return await _run(self._lookups, call)

    async def cancel(self, call: Callable[[], T]) -> T:
        """Return the result of a call that waits for the acknowledgement of every worker."""
        return await _run(self._cancellations, call)

    def shutdown(self) -> None:
        """Start no further call; those that run are bounded by the timeouts of the broker."""
        for threads in (self.sends, self.streams, self._lookups, self._cancellations):
            threads.shutdown(wait=False, cancel_futures=True)


async def _run(threads: Executor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)
