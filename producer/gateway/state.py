"""Hold what all routes share: the client, the threads, the streams there are, and whether to stop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from millpond.producer.client import Client
from millpond.producer.gateway.overflow import Policies
from millpond.producer.gateway.ownership import Owners
from millpond.producer.gateway.problems import refusal
from millpond.producer.gateway.request_metrics import Figures
from millpond.producer.gateway.send_batcher import Coalescing
from millpond.producer.gateway.thread_pools import Threads
from millpond.tasks.settings import Settings

#: Streams are told to end this part of the drain deadline before it, so that their last line gets out; no
#: wait for room, which cannot be broken off, is longer than the second part.
_LAST_WORDS, _WAIT = 0.4, 0.3


class Gate:
    """Hold the state of one gateway; made inside the event loop that serves it."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.settings = settings.gateway
        self.client = client
        self.threads = Threads(settings.gateway.max_streams)
        self.owners = Owners(client.store, self.threads)
        self.sends = Coalescing(client, self.threads.sends, Policies(client.store))
        self.stopping = asyncio.Event()
        self.cut = asyncio.Event()
        self.longest_wait = timedelta(seconds=_WAIT * settings.drain_seconds)
        self._drain_seconds = settings.drain_seconds
        self._streams = {"tasks": 0, "results": 0}
        self.figures = Figures(self._streams)

    def stop(self) -> None:
        """End what can be resumed now, and what is under way shortly before the drain deadline."""
        if not self.stopping.is_set():
            self.stopping.set()
            loop = asyncio.get_running_loop()
            loop.call_later(self._drain_seconds * (1 - _LAST_WORDS), self.cut.set)

    @contextmanager
    def stream(self, of: str) -> Iterator[None]:
        """Count a stream while it lasts. Raises `Refusal` when there are as many as there may be."""
        if self._streams[of] >= self.settings.max_streams:
            text = f"{self.settings.max_streams} streams of {of} are open, as many as may be: try again"
            raise refusal(503, "too_many_streams", text, retry_after=5)
        self._streams[of] += 1
        try:
            yield
        finally:
            self._streams[of] -= 1

    def close(self) -> None:
        """Let the threads and the connections go."""
        self.threads.shut()
        self.client.close()
