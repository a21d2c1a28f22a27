"""The threads in which the event loop calls the client, a bounded pool for each sort of call.

The event loop never waits for the broker, and a short call does not wait for calls of a longer sort.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from millpond.producer.gateway.send_batcher import CONCURRENT_CALLS
from millpond.producer.gateway.shares import share_of

T = TypeVar("T")

#: The numbers of threads. Searches and cancellations keep the server busy, so they are few.
LOOKUPS, SEARCHES, CANCELLATIONS = 8, 2, 4


class SharedPool(ThreadPoolExecutor):
    """Threads that tokens share. A token that uses its share of them waits, so that others find a thread."""

    def __init__(self, max_threads: int, thread_name: str, token_count: int) -> None:
        super().__init__(max_threads, thread_name)
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(share_of(max_threads, token_count))
        )

    async def run(self, token: str, call: Callable[[], T]) -> T:
        """Return the result of a call for a token. Raises the error of the call."""
        async with self._turns[token]:
            return await asyncio.get_running_loop().run_in_executor(self, call)


class ThreadPools:
    """The pools of one gateway. Lookups are calls of a round trip or two.

    Searches read waiting messages, and cancellations wait for every worker. Probes are the gateway's own
    checks of the broker. `token_count` is the number of configured tokens.
    """

    def __init__(self, max_streams: int, token_count: int) -> None:
        self.sends = ThreadPoolExecutor(CONCURRENT_CALLS, "send")
        self.streams = ThreadPoolExecutor(max_streams, "stream")
        self.probes = ThreadPoolExecutor(1, "probe")
        self.lookups = SharedPool(LOOKUPS, "lookup", token_count)
        self.searches = SharedPool(SEARCHES, "search", token_count)
        self.cancellations = SharedPool(CANCELLATIONS, "cancel", token_count)

    def shutdown(self) -> None:
        """Start no further call. The running calls are bounded by the timeouts of the broker."""
        shared = (self.lookups, self.searches, self.cancellations)
        for pool in (self.sends, self.streams, self.probes, *shared):
            pool.shutdown(wait=False, cancel_futures=True)
