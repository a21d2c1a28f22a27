"""The threads in which the event loop calls the client, a bounded pool for each sort of call.

The event loop never waits for the broker, and a call that may take long keeps no short one waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from millpond.producer.gateway.send_batcher import CONCURRENT_CALLS
from millpond.producer.gateway.shares import Turns

T = TypeVar("T")

LOOKUPS = 8
#: Each of these keeps the server busy, so they are few.
SEARCHES = 2
CANCELLATIONS = 4


class ThreadPools:
    """Threads for sends, streams, lookups, searches, cancellations and probes.

    `streams` bounds the concurrent streams. `tokens` is the number of tokens that share the threads.
    """

    def __init__(self, streams: int, tokens: int) -> None:
        self.sends = ThreadPoolExecutor(CONCURRENT_CALLS, "send")
        self.streams = ThreadPoolExecutor(streams, "stream")
        self._lookups = ThreadPoolExecutor(LOOKUPS, "lookup")
        self._searches = ThreadPoolExecutor(SEARCHES, "search")
        self._cancellations = ThreadPoolExecutor(CANCELLATIONS, "cancel")
        self._probes = ThreadPoolExecutor(1, "probe")
        self._turns_to_look_up = Turns(LOOKUPS, tokens)
        self._turns_to_search = Turns(SEARCHES, tokens)
        self._turns_to_cancel = Turns(CANCELLATIONS, tokens)

    async def run_lookup(self, token: str, call: Callable[[], T]) -> T:
        """Return the result of a call that takes a round trip or two, in a turn of its token."""
        async with self._turns_to_look_up.turn_of(token):
            return await _run_in_pool(self._lookups, call)

    async def run_search(self, token: str, call: Callable[[], T]) -> T:
        """Return the result of a call that reads waiting messages, in a turn of its token."""
        async with self._turns_to_search.turn_of(token):
            return await _run_in_pool(self._searches, call)

    async def run_cancel(self, token: str, call: Callable[[], T]) -> T:
        """Return the result of a call that waits for every worker, in a turn of its token."""
        async with self._turns_to_cancel.turn_of(token):
            return await _run_in_pool(self._cancellations, call)

    async def run_probe(self, call: Callable[[], T]) -> T:
        """Return the result of a call of the gateway itself, which waits for no request."""
        return await _run_in_pool(self._probes, call)

    def shutdown(self) -> None:
        """Start no further call. The running calls are bounded by the timeouts of the broker."""
        some = (self._lookups, self._searches, self._cancellations, self._probes)
        for threads in (self.sends, self.streams, *some):
            threads.shutdown(wait=False, cancel_futures=True)


async def _run_in_pool(threads: Executor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)
