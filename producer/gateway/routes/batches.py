"""`/batches`: open, read, close and cancel a batch, and stream its results. `stream.py` sends into it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millpond.broker.batches import record
from millpond.broker.control import cancel as control_cancel
from millpond.producer.gateway.openapi import problem_responses
from millpond.producer.gateway.options import BatchId, refuse_in_words
from millpond.producer.gateway.problems import invalid_fields_error
from millpond.producer.gateway.routes.results import ResultEvents, read_page
from millpond.producer.gateway.routes.tasks import ACK_TIMEOUT_SECONDS
from millpond.producer.gateway.schemas import BatchView, CancelView
from millpond.producer.gateway.state import State

Position = Annotated[
    str,
    Field(pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$"),
    refuse_in_words("must be the id of an event of this stream"),
]


class BatchOptions(BaseModel):
    """The options of a new batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", max_length=200)


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An event `result` for each, then `complete` with the counts",
        "content": {"text/event-stream": {}},
    },
    204: {"description": "The batch is complete, without results behind `Last-Event-ID`: do not reconnect"},
    **problem_responses(401, 403, 404, 422, 503),
}


def routes(state: State) -> APIRouter:
    """Return the routes of batches."""
    router = APIRouter(
        tags=["batches"],
        responses=problem_responses(401, 403, 422, 503),
        generate_unique_id_function=lambda route: route.name,
    )
    _add_write_routes(router, state)
    _add_read_routes(router, state)
    return router


def _add_write_routes(router: APIRouter, state: State) -> None:
    """Add the routes that open, close and cancel a batch."""
    store = state.client.store

    @router.post(
        "/batches",
        status_code=201,
        response_model=BatchView,
        summary="Open a batch",
        responses=problem_responses(429),
    )
    async def open_batch(
        options: Annotated[BatchOptions, Query()], request: Request, response: Response
    ) -> Any:
        """Open a batch. This token, and tokens for every kind, may send into, read, close and cancel it."""
        if (await request.body()).strip() not in (b"", b"{}"):
            fault = {"loc": (), "type": "body_not_read", "msg": "is not read: write options into the query"}
            raise invalid_fields_error([fault])
        token = request.state.principal.name
        await state.owners.require_room(request.state.principal, state.settings.max_batches)
        summary = await state.threads.lookups.run(
            token, lambda: state.client.batch(options.description, owner=token).summary()
        )
        response.headers["Location"] = f"/batches/{summary.id}"
        return summary

    @router.post(
        "/batches/{id}/close",
        response_model=BatchView,
        summary="Close a batch",
        responses=problem_responses(404),
    )
    async def close_batch(id: BatchId, request: Request) -> Any:
        """Close a batch: it accepts no further task. Closing it again changes nothing."""
        return await state.call_for_owner(request.state.principal, id, lambda: record.close_batch(store, id))

    @router.post(
        "/batches/{id}/cancel",
        response_model=CancelView,
        summary="Cancel a batch",
        responses=problem_responses(404),
    )
    async def cancel_batch(id: BatchId, request: Request) -> Any:
        """Close a batch and start no further task of it; running tasks are asked to stop."""
        await state.owners.require_owner(request.state.principal, id)
        return await state.threads.cancellations.run(
            request.state.principal.name,
            lambda: control_cancel.cancel_batch(store, id, timeout_seconds=ACK_TIMEOUT_SECONDS),
        )


def _add_read_routes(router: APIRouter, state: State) -> None:
    """Add the routes that read the counts and the results of a batch."""
    store = state.client.store

    @router.get(
        "/batches/{id}", response_model=BatchView, summary="Read a batch", responses=problem_responses(404)
    )
    async def get_batch(id: BatchId, request: Request) -> Any:
        """Return the number of tasks sent into a batch, and how they ended."""
        return await state.call_for_owner(request.state.principal, id, lambda: record.read_summary(store, id))

    @router.get(
        "/batches/{id}/results",
        status_code=200,
        response_class=Response,
        summary="Stream the results of a batch",
        responses=_EVENTS,
    )
    async def stream_results(
        request: Request,
        id: BatchId,
        last_event_id: Annotated[
            Position, Header(description="Start behind this event; without it, from the first.")
        ] = "0",
    ) -> Response:
        """Stream results in order of completion, as server-sent events, until the batch is complete."""
        summary, page = await state.call_for_owner(
            request.state.principal, id, lambda: read_page(state, id, last_event_id)
        )
        if summary.complete and not page and "last-event-id" in request.headers:
            return Response(status_code=204)
        return ResultEvents(state, id, after=last_event_id, token=request.state.principal.name)
