"""The state that all routes share: client, threads, open streams, and whether the gateway stops."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal, TypeVar

from millpond.producer.client import Client
from millpond.producer.gateway.auth import BatchOwners
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.request_metrics import RequestMetrics
from millpond.producer.gateway.send_batcher import SendBatcher
from millpond.producer.gateway.shares import Shares
from millpond.producer.gateway.thread_pools import ThreadPools
from millpond.producer.gateway.tokens import Principal
from millpond.tasks.settings import Settings

T = TypeVar("T")

#: The last part of the time until the drain deadline, in which streams of tasks write their summaries.
_SUMMARY_PART = 0.4
#: The longest single wait for room, which cannot be interrupted, as a part of the same time.
_WAIT_PART = 0.3


class State:
    """The state of one gateway. It is made inside the event loop that serves it.

    SIGTERM sets `stopping`: streams of results end, because they can be resumed at another gateway.
    `end_streams` is set shortly before the drain deadline: streams of tasks end then.
    """

    def __init__(self, settings: Settings, client: Client) -> None:
        self.settings = settings.gateway
        self.client = client
        #: The Celery application that the settings name.
        self.app = settings.app
        #: The names of the tasks of the Celery application that the settings name.
        self.app_tasks: frozenset[str] = frozenset()
        if settings.app is not None:
            from millpond.tasks import celery_application

            self.app_tasks = celery_application.load_task_names(settings.app)
        token_count = len(settings.gateway.tokens)
        self.threads = ThreadPools(settings.gateway.max_streams, token_count)
        self.owners = BatchOwners(client.store, self.threads)
        self.batcher = SendBatcher(client, self.threads.sends)
        self.stopping = asyncio.Event()
        self.end_streams = asyncio.Event()
        self.longest_wait = timedelta(seconds=_WAIT_PART * settings.drain_seconds)
        self._drain_seconds = settings.drain_seconds
        self._streams = {"tasks": 0, "results": 0}
        self._shares = {
            stream_type: Shares(self.settings.max_streams, token_count, f"streams of {stream_type}")
            for stream_type in self._streams
        }
        self.metrics = RequestMetrics(self._streams)

    def begin_stop(self) -> None:
        """Set `stopping` now and `end_streams` before the drain deadline. A second call changes nothing."""
        if not self.stopping.is_set():
            self.stopping.set()
            loop = asyncio.get_running_loop()
            loop.call_later(self._drain_seconds * (1 - _SUMMARY_PART), self.end_streams.set)

    async def call_for_owner(self, principal: Principal, batch: str, call: Callable[[], T]) -> T:
        """Return the result of a short call about a batch, in a thread. Raises the errors of the call.

        Raises `ApiError` 403 if the principal's token did not open the batch.
        """
        await self.owners.require_owner(principal, batch)
        return await self.threads.lookups.run(principal.name, call)

    @contextmanager
    def count_stream(self, stream_type: Literal["tasks", "results"], token: str) -> Iterator[None]:
        """Count a stream as open during the block.

        Raises `ApiError` 503 at the limit of open streams, and if the token has its share of them.
        """
        if self._streams[stream_type] >= self.settings.max_streams:
            max_streams = self.settings.max_streams
            text = f"{max_streams} streams of {stream_type} are open, the most allowed: try again later"
            raise ApiError(503, "too_many_streams", text, retry_after=5)
        with self._shares[stream_type].hold_share(token):
            self._streams[stream_type] += 1
            try:
                yield
            finally:
                self._streams[stream_type] -= 1

    def close(self) -> None:
        """Stop the threads, and close the connections to the broker."""
        self.threads.shutdown()
        self.client.close()
