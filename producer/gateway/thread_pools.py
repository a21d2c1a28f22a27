"""Keep the threads in which the client is called, so that nobody waits for those whom others occupy.

The event loop never waits for the broker; a call that may take long has threads of its own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from millpond.producer.gateway.send_batcher import CALLS_AT_ONCE

T = TypeVar("T")

LOOKUPS = 8
CANCELS = 8


class Threads:
    """Hold a bounded number of threads for each sort of call."""

    def __init__(self, streams: int) -> None:
        self.sends = ThreadPoolExecutor(CALLS_AT_ONCE, "send")
        self.streams = ThreadPoolExecutor(streams, "stream")
        self._lookups = ThreadPoolExecutor(LOOKUPS, "look")
        self._cancels = ThreadPoolExecutor(CANCELS, "cancel")

    async def look(self, call: Callable[[], T]) -> T:
        """Make a call that takes a round trip or two."""
        return await _run(self._lookups, call)

    async def cancel(self, call: Callable[[], T]) -> T:
        """Make a call that waits until every worker has heard."""
        return await _run(self._cancels, call)

    def shut(self) -> None:
        """Start nothing more; what runs is bounded by the broker's time-outs."""
        for threads in (self.sends, self.streams, self._lookups, self._cancels):
            threads.shutdown(wait=False, cancel_futures=True)


async def _run(threads: Executor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)
