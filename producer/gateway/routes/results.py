"""Stream the results of a batch as server-sent events, from any point, again after a disconnect.

The id of an event is the position of its result; who reconnects says it in `Last-Event-ID` and misses
nothing. Source: WHATWG HTML, "Server-sent events". A reader holds no thread and no connection to the broker
while nothing comes.
"""

import asyncio
import json
import time
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.producer.gateway.schemas import as_object
from millpond.producer.gateway.state import Gate
from millpond.tasks.errors import BrokerAway, UnknownBatch

AT_ONCE = 200
SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0


class Events(Response):
    """Send results until the batch is complete, the client leaves, or the gateway stops."""

    media_type = "text/event-stream"

    def __init__(self, gate: Gate, batch: str, *, after: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._gate = gate
        self._batch = batch
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream, as long as somebody is there."""
        with self._gate.stream("results"):
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        over = [
            asyncio.ensure_future(each)
            for each in (_left(receive), self._gate.stopping.wait(), self._stream(send))
        ]
        try:
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
            if over[2].done():
                over[2].result()
        finally:
            for each in over:
                each.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*over, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, send: Send) -> None:
        pause, said_at = SHORTEST_PAUSE_SECONDS, time.monotonic()
        await self._write(send, "retry: 1000\n\n")
        while True:
            try:
                summary, found = await self._gate.threads.look(self._look)
            except UnknownBatch:
                return
            except BrokerAway:
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)
                continue
            if found:
                await self._write(send, "".join(map(_event, found)))
                self._after, pause, said_at = found[-1].position, SHORTEST_PAUSE_SECONDS, time.monotonic()
                continue
            if summary.complete:
                await self._write(send, f"event: complete\ndata: {json.dumps(as_object(summary))}\n\n")
                return
            if time.monotonic() - said_at > KEEP_ALIVE_SECONDS:
                await self._write(send, ": nothing yet\n\n")
                said_at = time.monotonic()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def _look(self) -> tuple[Summary, list[Result]]:
        return read_on(self._gate, self._batch, self._after)

    async def _write(self, send: Send, text: str) -> None:
        async with asyncio.timeout(self._gate.settings.idle_seconds):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def read_on(gate: Gate, batch: str, after: str) -> tuple[Summary, list[Result]]:
    """Return the counts of a batch, and the results behind a position.

    What had settled before the counts were read is among the results: none behind those of a complete batch
    is the end.
    """
    store = gate.client.store
    summary = record.summary(store, batch)
    return summary, record.results(store, batch, after=after, wait_ms=0, limit=AT_ONCE)


def _event(result: Result) -> str:
    data = {"id": result.id, "state": result.state, "value": result.value, "error": result.error}
    return f"id: {result.position}\nevent: result\ndata: {json.dumps(data)}\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
