"""Results of a batch as server-sent events, from any position, so that a client can reconnect.

The id of an event is the position of its result: a client that reconnects with `Last-Event-ID` misses
nothing. Source: WHATWG HTML, "Server-sent events". A stream without new results occupies no thread and no
connection to the broker.
"""

import asyncio
import time
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.producer import json_text
from millpond.producer.gateway.schemas import batch_object
from millpond.producer.gateway.state import State
from millpond.tasks.errors import BrokerAway, UnknownBatch

PAGE = 200
SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0


class ResultEvents(Response):
    """Sends results until the batch is complete, the client disconnects, or the gateway stops."""

    media_type = "text/event-stream"

    def __init__(self, state: State, batch: str, *, after: str, token: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._state = state
        self._batch = batch
        self._after = after
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Respond to the request with events."""
        with self._state.count_stream("results", self._token):
            await self._answer_until_stopped(receive, send)

    async def _answer_until_stopped(self, receive: Receive, send: Send) -> None:
        """Send events until the batch is complete, the client disconnects, or the gateway stops."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        tasks = [
            asyncio.ensure_future(each)
            for each in (
                _disconnected(receive),
                self._state.stopping.wait(),
                self._stream_results(send),
            )
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2].done():
                tasks[2].result()
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream_results(self, send: Send) -> None:
        """Send results as they come, a comment while there are none, and the counts at the end."""
        pause, written_at = SHORTEST_PAUSE_SECONDS, time.monotonic()
        await self._write_text(send, "retry: 1000\n\n")
        while True:
            try:
                summary, results = await self._state.threads.run_lookup(self._token, self._read_next)
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
                    send, f"event: complete\ndata: {json_text.to_text(batch_object(summary))}\n\n"
                )
                return
            if time.monotonic() - written_at > KEEP_ALIVE_SECONDS:
                await self._write_text(send, ": nothing yet\n\n")
                written_at = time.monotonic()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def _read_next(self) -> tuple[Summary, list[Result]]:
        return read_after(self._state, self._batch, self._after)

    async def _write_text(self, send: Send, text: str) -> None:
        async with asyncio.timeout(self._state.settings.idle_seconds):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def read_after(state: State, batch: str, after: str) -> tuple[Summary, list[Result]]:
    """Return the summary of a batch, and then its results behind a position.

    Results that the summary counts are in the stream: no result behind those of a complete batch is the end.
    """
    store = state.client.store
    summary = record.summary(store, batch)
    return summary, record.results(store, batch, after=after, wait_ms=0, limit=PAGE)


def _format_event(result: Result) -> str:
    data = {"id": result.id, "state": result.state, "value": result.value, "error": result.error}
    return f"id: {result.position}\nevent: result\ndata: {json_text.to_text(data)}\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
