"""`POST /send` and `POST /batches/{id}/tasks`: a stream of tasks in, a stream of outcomes out.

Both run at once on one connection. At most a few hundred lines are read ahead of their outcomes. While the
queue is full nothing more is read, so that TCP makes the client wait. The last line is a summary, whose
`aborted` is the reason why the body was not read to its end, or null.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millpond.broker.batches import record
from millpond.producer.gateway.headers import NDJSON, media_type, read_traceparent
from millpond.producer.gateway.ndjson import Line, LineSplitter
from millpond.producer.gateway.openapi import problem_responses
from millpond.producer.gateway.options import BatchId, StreamTask, WaitSeconds
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.state import State
from millpond.producer.gateway.stream_sender import StreamSender

#: The most lines that are sent to the broker together.
LINES_A_CALL = 500


class StreamOptions(BaseModel):
    """The options of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overflow: Literal["block", "reject", "shed"] = Field(
        "block", description="The overflow policy, instead of the queues' own."
    )
    wait_seconds: WaitSeconds | None = Field(
        None, description="How long `block` waits while no task is accepted."
    )


_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One object of this schema a line",
        "content": {
            NDJSON: {
                "schema": StreamTask.model_json_schema(),
                "example": {"kind": "squares.square", "task": {"n": 7}, "once": "seven"},
            }
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each task, with its number; the last line is a summary",
        "content": {NDJSON: {}},
    },
    **problem_responses(401, 403, 413, 415, 422, 503),
}


def routes(state: State) -> APIRouter:
    """Return the two routes that accept streams."""
    router = APIRouter(tags=["send"])

    @router.post(
        "/send",
        summary="Send many",
        status_code=200,
        response_class=Response,
        openapi_extra=_REQUEST_BODY,
        responses=_ANSWERS,
    )
    async def send_many(request: Request, options: Annotated[StreamOptions, Query()]) -> "DuplexResponse":
        """Send one task a line, under backpressure; outcomes come while the body is sent."""
        return _make_response(state, request, options, batch=None, room=None)

    @router.post(
        "/batches/{id}/tasks",
        summary="Send into a batch",
        tags=["batches"],
        status_code=200,
        response_class=Response,
        openapi_extra=_REQUEST_BODY,
        responses=_ANSWERS | problem_responses(404),
    )
    async def send_into_batch(
        id: BatchId, request: Request, options: Annotated[StreamOptions, Query()]
    ) -> "DuplexResponse":
        """Send one task a line into an open batch; any number of streams may send into one batch."""
        summary = await state.call_for_owner(
            request.state.principal, id, lambda: record.read_summary(state.client.store, id)
        )
        room = state.settings.max_batch_tasks - summary.sent
        return _make_response(state, request, options, batch=id, room=room)

    return router


def _make_response(
    state: State, request: Request, options: StreamOptions, *, batch: str | None, room: int | None
) -> "DuplexResponse":
    """Return the response that sends the lines of a request's body, into a batch unless it is None.

    `room` is the number of tasks that the batch may still accept. Raises `ApiError` 415 for a body of another
    content type.
    """
    if media_type(request.headers) != NDJSON:
        raise ApiError(
            415,
            "media_type",
            f"send one task a line, with Content-Type: {NDJSON}; a single task goes to /send/KIND",
        )
    wait_seconds = options.wait_seconds
    sender = StreamSender(
        state.client,
        request.state.principal,
        overflow=options.overflow,
        batch=batch,
        room=room,
        wait_seconds=state.settings.wait_seconds if wait_seconds is None else wait_seconds,
        longest_wait=state.longest_wait,
        traceparent=read_traceparent(request.headers.raw),
    )
    return DuplexResponse(state, sender, request.state.principal.name)


class DuplexResponse(Response):
    """Reads the body of the request line by line, and writes the outcome of a line as soon as it is known."""

    media_type = NDJSON

    def __init__(self, state: State, sender: StreamSender, token: str) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._state = state
        self._sender = sender
        self._token = token
        self._body_ended = False
        self._aborted: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream until the body ends, the client disconnects, the broker is away, or the gateway stops.

        Raises `ApiError` 503 if too many streams are open.
        """
        with self._state.count_stream("tasks", self._token):
            await self._stream_outcomes(receive, send)

    async def _stream_outcomes(self, receive: Receive, send: Send) -> None:
        """Send the tasks of the body, write their outcomes, and at the end the summary."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        stopper = asyncio.create_task(self._stop_with_gateway())
        threads = self._state.threads.streams
        try:
            async for lines in self._read_lines(receive):
                async for outcomes in _iterate_in_thread(threads, self._sender.send_lines(lines)):
                    await self._write_body(send, outcomes)
                if self._sender.broker_away:
                    self._aborted = "broker_away"
                    break
            summary = {"summary": {**asdict(self._sender.counts), "aborted": self._aborted}}
            await self._write_body(send, json.dumps(summary).encode() + b"\n")
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._sender.stop.set()
            stopper.cancel()
            self._state.metrics.count_stream(self._sender.counts)

    async def _stop_with_gateway(self) -> None:
        """Stop the sender's waits when the gateway stops and ends its streams."""
        await self._state.end_streams.wait()
        self._sender.stop.set()

    async def _read_lines(self, receive: Receive) -> AsyncIterator[list[Line]]:
        """Yield the lines of the body in groups of at most `LINES_A_CALL`, as they arrive."""
        splitter = LineSplitter(self._state.settings.max_task_bytes)
        while (piece := await self._next_piece(receive)) is not None:
            for lines in _group_lines(splitter.split_lines(piece)):
                yield lines
        if self._aborted is None:
            for lines in _group_lines(splitter.last_line()):
                yield lines

    async def _next_piece(self, receive: Receive) -> bytes | None:
        """Return the next piece of the body. Return None at its end, and if the stream ends early.

        The reason for an early end is then in `_aborted`.
        """
        if self._body_ended:
            return None
        read = asyncio.ensure_future(receive())
        end = asyncio.ensure_future(self._state.end_streams.wait())
        try:
            await asyncio.wait({read, end}, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                self._aborted = "stopping"
                return None
            message = read.result()
        except ApiError as error:
            self._aborted = error.problem.code
            return None
        finally:
            read.cancel()
            end.cancel()
        if message["type"] == "http.disconnect":
            self._aborted = "client_disconnected"
            return None
        self._body_ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def _write_body(self, send: Send, body: bytes) -> None:
        """Write a piece of the response. Raises `TimeoutError` if the client does not read it in time."""
        async with asyncio.timeout(self._state.settings.idle_seconds):
            await send({"type": "http.response.body", "body": body, "more_body": True})


def _group_lines(lines: Iterable[Line]) -> Iterator[list[Line]]:
    iterator = iter(lines)
    while group := list(islice(iterator, LINES_A_CALL)):
        yield group


async def _iterate_in_thread(threads: Executor, lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Iterate over lines in a thread. Yield those that are ready, joined, whenever there are any.

    Raises the error of the iteration.
    """
    loop, ready, wake = asyncio.get_running_loop(), deque[bytes](), asyncio.Event()

    def iterate() -> None:
        for line in lines:
            ready.append(line)
            if not wake.is_set():
                loop.call_soon_threadsafe(wake.set)

    iteration = loop.run_in_executor(threads, iterate)
    iteration.add_done_callback(lambda _: wake.set())
    while True:
        await wake.wait()
        wake.clear()
        has_ended = iteration.done()  # read before the lines are: none is appended once it is True
        if ready:
            yield b"".join(ready.popleft() for _ in range(len(ready)))
        if has_ended:
            iteration.result()
            return
