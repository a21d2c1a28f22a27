"""Answer `POST /send` and `POST /batches/{id}/tasks`: a stream of tasks in, a stream of outcomes out."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millpond.broker.batches import record
from millpond.producer.gateway.duplex import Exchange
from millpond.producer.gateway.middleware import NDJSON
from millpond.producer.gateway.openapi import problems
from millpond.producer.gateway.options import BatchId, Line
from millpond.producer.gateway.problems import explained, refusal
from millpond.producer.gateway.state import Gate
from millpond.producer.gateway.stream_sender import Feed
from millpond.producer.gateway.trace_context import traceparent
from millpond.tasks.errors import BrokerError


class StreamOptions(BaseModel):
    """Say what a stream does when a queue is full; it waits unless told otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overflow: Literal["block", "reject", "shed"] = "block"
    wait_seconds: float | None = Field(
        None, ge=0, le=86_400, description="How long `block` waits while nothing at all is taken."
    )


_SHOWN: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An object of this schema a line",
        "content": {
            NDJSON: {
                "schema": Line.model_json_schema(),
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
    **problems(401, 403, 413, 415, 422, 503),
}


def routes(gate: Gate) -> APIRouter:
    """Return the two routes that take streams."""
    router = APIRouter(tags=["send"])

    @router.post(
        "/send",
        summary="Send many",
        status_code=200,
        response_class=Response,
        openapi_extra=_SHOWN,
        responses=_ANSWERS,
    )
    async def send_many(request: Request, options: Annotated[StreamOptions, Query()]) -> Exchange:
        """Send a task a line, under backpressure; outcomes come while the body goes on."""
        return _exchange(gate, request, options, batch=None, room=None)

    @router.post(
        "/batches/{id}/tasks",
        summary="Feed a batch",
        tags=["batches"],
        status_code=200,
        response_class=Response,
        openapi_extra=_SHOWN,
        responses=_ANSWERS | problems(404),
    )
    async def feed(id: BatchId, request: Request, options: Annotated[StreamOptions, Query()]) -> Exchange:
        """Send a task a line into an open batch; any number of streams may feed one."""
        await gate.owners.must_own(request.state.holder, id)
        try:
            summary = await gate.threads.look(lambda: record.summary(gate.client.store, id))
        except BrokerError as error:
            raise explained(error) from None
        room = gate.settings.max_batch_tasks - summary.sent
        return _exchange(gate, request, options, batch=id, room=room)

    return router


def _exchange(
    gate: Gate, request: Request, options: StreamOptions, *, batch: str | None, room: int | None
) -> Exchange:
    if not request.headers.get("content-type", "").startswith(NDJSON):
        raise refusal(415, "media_type", f"send a task a line, with Content-Type: {NDJSON}")
    asked = options.wait_seconds
    feed = Feed(
        gate.client,
        request.state.holder,
        overflow=options.overflow,
        batch=batch,
        room=room,
        wait_seconds=gate.settings.wait_seconds if asked is None else asked,
        longest_wait=gate.longest_wait,
        traceparent=traceparent(request.headers.raw),
    )
    return Exchange(gate, feed)
