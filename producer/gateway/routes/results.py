"""Results of a batch as server-sent events, from any position, so that a client can reconnect.

The id of an event is the position of its result, so a client that reconnects with `Last-Event-ID` misses no
result. Source: WHATWG HTML, "Server-sent events". While a stream waits for new results, it occupies neither a
thread nor a connection to the broker.
"""

import asyncio
import time
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.producer import json_text
from millpond.producer.gateway.schemas import batch_json
from millpond.producer.gateway.state import State
from millpond.tasks.errors import BrokerAway, UnknownBatch

#: The most results of one read.
PAGE_SIZE = 200
#: The pause between two reads of a batch without new results. It grows from the first to the second.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.5
#: A comment is sent after this time without results, so that no proxy closes the connection.
KEEP_ALIVE_SECONDS = 15.0


class ResultEvents(Response):
    """Sends the results of a batch after a position, as events.

    It ends when the batch is complete, the client disconnects, or the gateway stops.
    """

    media_type = "text/event-stream"

    def __init__(self, state: State, batch: str, *, after: str, token: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._state = state
        self._batch = batch
        self._after = after
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events. Raises `ApiError` 503 if too many streams are open."""
        with self._state.count_stream("results", self._token):
            await self._send_until_stopped(receive, send)

    async def _send_until_stopped(self, receive: Receive, send: Send) -> None:
        """Send the whole response. It ends early if the client disconnects or the gateway stops."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        stream = asyncio.ensure_future(self._stream_results(send))
        tasks = [
            asyncio.ensure_future(_wait_for_disconnect(receive)),
            asyncio.ensure_future(self._state.stopping.wait()),
            stream,
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                stream.result()
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream_results(self, send: Send) -> None:
        """Send results as they come, a comment now and then while there are none, and the counts at the end.

        While the broker is away, try again. Return without the counts if the batch no longer exists.
        """
        pause, written_at = SHORTEST_PAUSE_SECONDS, time.monotonic()
        await self._write_text(send, "retry: 1000\n\n")
        while True:
            try:
                summary, results = await self._state.threads.lookups.run(
                    self._token, lambda: read_page(self._state, self._batch, self._after)
                )
            except UnknownBatch:
                return
            except BrokerAway:
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)
                continue
            if results:
                await self._write_text(send, "".join(map(_format_event, results)))
                self._after = results[-1].position
                pause, written_at = SHORTEST_PAUSE_SECONDS, time.monotonic()
                continue
            if summary.complete:
                await self._write_text(
                    send, f"event: complete\ndata: {json_text.to_text(batch_json(summary))}\n\n"
                )
                return
            if time.monotonic() - written_at > KEEP_ALIVE_SECONDS:
                await self._write_text(send, ": nothing yet\n\n")
                written_at = time.monotonic()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    async def _write_text(self, send: Send, text: str) -> None:
        """Send a part of the response. Raises `TimeoutError` if the client does not read it in time."""
        async with asyncio.timeout(self._state.settings.idle_seconds):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def read_page(state: State, batch: str, after: str) -> tuple[Summary, list[Result]]:
    """Return the summary of a batch, and its next results after a position.

    The summary is read first, so no result is missing from the page if the batch is complete. An empty page
    of a complete batch is therefore the end.
    """
    store = state.client.store
    summary = record.read_summary(store, batch)
    return summary, record.read_results(store, batch, after=after, wait_ms=0, limit=PAGE_SIZE)


def _format_event(result: Result) -> str:
    data = {"id": result.id, "state": result.state, "value": result.value, "error": result.error}
    return f"id: {result.position}\nevent: result\ndata: {json_text.to_text(data)}\n\n"


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
