"""Answer `/batches`: open, count, close, cancel, and stream the results. `many.py` feeds them."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millpond.broker.batches import record
from millpond.broker.control import cancel as control_cancel
from millpond.producer.gateway.openapi import problems
from millpond.producer.gateway.options import BatchId
from millpond.producer.gateway.problems import explained
from millpond.producer.gateway.routes.results import Events, read_on
from millpond.producer.gateway.routes.tasks import ACK_TIMEOUT_SECONDS
from millpond.producer.gateway.schemas import BatchView, CancelView
from millpond.producer.gateway.state import Gate
from millpond.tasks.errors import BrokerError

Position = Annotated[str, Field(pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$")]


class Opening(BaseModel):
    """Say what a batch is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", max_length=200)


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An event `result` for each, then `complete` with the counts",
        "content": {"text/event-stream": {}},
    },
    204: {"description": "The batch is complete and nothing came behind `Last-Event-ID`: do not reconnect"},
    **problems(401, 403, 404, 422, 503),
}


def routes(gate: Gate) -> APIRouter:
    """Return the routes of batches."""
    router = APIRouter(tags=["batches"], responses=problems(401, 403, 422, 503))
    _open_and_end(router, gate)
    _read(router, gate)
    return router


def _open_and_end(router: APIRouter, gate: Gate) -> None:
    @router.post("/batches", status_code=201, response_model=BatchView, summary="Open a batch")
    async def open_(options: Annotated[Opening, Query()], request: Request, response: Response) -> Any:
        """Open a batch. This token, and those for every kind, may feed, read, close and cancel it."""
        owner = request.state.holder.name

        def call() -> record.Summary:
            return gate.client.batch(options.description, owner=owner).summary()

        summary = await _answered(gate, call)
        response.headers["Location"] = f"/batches/{summary.id}"
        return summary

    @router.post("/batches/{id}/close", response_model=BatchView, responses=problems(404))
    async def close(id: BatchId, request: Request) -> Any:
        """Say that nothing more will come; closing again changes nothing."""
        await gate.owners.must_own(request.state.holder, id)
        return await _answered(gate, lambda: gate.client.open_batch(id).close())

    @router.post("/batches/{id}/cancel", response_model=CancelView, responses=problems(404))
    async def cancel(id: BatchId, request: Request) -> Any:
        """Close it, and start nothing of it any more; what runs is told."""
        await gate.owners.must_own(request.state.holder, id)
        store = gate.client.store
        try:
            done = await gate.threads.cancel(
                lambda: control_cancel.cancel_batch(store, id, timeout_seconds=ACK_TIMEOUT_SECONDS)
            )
        except BrokerError as error:
            raise explained(error) from None
        return CancelView(unacknowledged=list(done.unacknowledged))


def _read(router: APIRouter, gate: Gate) -> None:
    @router.get("/batches/{id}", response_model=BatchView, responses=problems(404))
    async def summary(id: BatchId, request: Request) -> Any:
        """Count what was sent into it and how it ended, now."""
        await gate.owners.must_own(request.state.holder, id)
        return await _answered(gate, lambda: gate.client.open_batch(id).summary())

    @router.get("/batches/{id}/results", status_code=200, response_class=Response, responses=_EVENTS)
    async def results(
        request: Request,
        id: BatchId,
        last_event_id: Annotated[
            Position, Header(description="Go on behind this event; from the first without it.")
        ] = "0",
    ) -> Response:
        """Stream results in order of completion, as server-sent events, until the batch is complete."""
        await gate.owners.must_own(request.state.holder, id)
        try:
            counts, found = await gate.threads.look(lambda: read_on(gate, id, last_event_id))
        except BrokerError as error:
            raise explained(error) from None
        if counts.complete and not found and "last-event-id" in request.headers:
            return Response(status_code=204)
        return Events(gate, id, after=last_event_id)


async def _answered(gate: Gate, call: Any) -> record.Summary:
    try:
        found: record.Summary = await gate.threads.look(call)
    except BrokerError as error:
        raise explained(error) from None
    return found
