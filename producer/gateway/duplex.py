"""Answer a stream of tasks with a stream of outcomes, both under way at once on one connection.

What is read and not yet answered is at most a few hundred lines; while the queue is full nothing more is
read, so that the client's own connection tells it to wait. The last line is a summary, which also says why
a stream ended before its body did.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict
from itertools import islice

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millpond.producer.gateway.middleware import NDJSON
from millpond.producer.gateway.ndjson import Lines, Raw
from millpond.producer.gateway.problems import Refusal
from millpond.producer.gateway.state import Gate
from millpond.producer.gateway.stream_sender import Feed

LINES_AT_ONCE = 500


class Exchange(Response):
    """Feed what comes, and answer as outcomes are known."""

    media_type = NDJSON

    def __init__(self, gate: Gate, feed: Feed) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._gate = gate
        self._feed = feed
        self._ended: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream until the body ends, the client leaves, or the gateway stops."""
        with self._gate.stream("tasks"):
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        stopping = asyncio.create_task(self._stop_in_time())
        try:
            async for lines in self._lines(receive):
                async for outcomes in _in_thread(self._gate.threads.streams, self._feed.outcomes(lines)):
                    await self._write(send, outcomes)
                if self._feed.away:
                    self._ended = "broker_away"
                    break
            summary = {"summary": {**asdict(self._feed.counts), "ended": self._ended}}
            await self._write(send, json.dumps(summary).encode() + b"\n")
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._feed.stop.set()
            stopping.cancel()
            self._gate.figures.streamed(self._feed.counts)

    async def _stop_in_time(self) -> None:
        await self._gate.cut.wait()
        self._feed.stop.set()

    async def _lines(self, receive: Receive) -> AsyncIterator[list[Raw]]:
        cutter = Lines(self._gate.settings.max_task_bytes)
        while (piece := await self._piece(receive)) is not None:
            for some in _groups(cutter.cut(piece)):
                yield some
        if self._ended is None:
            for some in _groups(cutter.end()):
                yield some

    async def _piece(self, receive: Receive) -> bytes | None:
        """Return the next piece of the body; None: there is no more, or no more is taken."""
        if self._body_ended:
            return None
        reading, cut = asyncio.ensure_future(receive()), asyncio.ensure_future(self._gate.cut.wait())
        try:
            await asyncio.wait({reading, cut}, return_when=asyncio.FIRST_COMPLETED)
            if cut.done():
                self._ended = "stopping"
                return None
            message = reading.result()
        except Refusal as refused:
            self._ended = refused.fault.code
            return None
        finally:
            reading.cancel()
            cut.cancel()
        if message["type"] == "http.disconnect":
            self._ended = "left"
            return None
        self._body_ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    _body_ended = False

    async def _write(self, send: Send, body: bytes) -> None:
        """Write a piece; a client that takes nothing for too long is cut off."""
        async with asyncio.timeout(self._gate.settings.idle_seconds):
            await send({"type": "http.response.body", "body": body, "more_body": True})


def _groups(lines: Iterable[Raw]) -> Iterator[list[Raw]]:
    iterator = iter(lines)
    while some := list(islice(iterator, LINES_AT_ONCE)):
        yield some


async def _in_thread(threads: Executor, lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Iterate in a thread, and yield what it gave so far whenever it gave something."""
    loop, given, some = asyncio.get_running_loop(), deque[bytes](), asyncio.Event()

    def iterate() -> None:
        for line in lines:
            given.append(line)
            if not some.is_set():
                loop.call_soon_threadsafe(some.set)

    done = loop.run_in_executor(threads, iterate)
    done.add_done_callback(lambda _: some.set())
    while True:
        await some.wait()
        some.clear()
        is_over = done.done()  # before the rest is taken: nothing is given after it
        if given:
            yield b"".join(given.popleft() for _ in range(len(given)))
        if is_over:
            done.result()
            return
