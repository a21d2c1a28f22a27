"""`POST /send/{kind}`: send one task and respond with its outcome.

A `SendEndpoint` reads the request and responds. Each kind has a route of its own, so that OpenAPI shows its
contract with an example. The tasks of the Celery application that the settings name share one route, whose
body has `args` and `kwargs`. A request never waits for room: for a full queue the response is 429 with
`Retry-After`.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from millpond.broker.batches import task_result
from millpond.producer import json_text
from millpond.producer.examples import example_fields
from millpond.producer.gateway.auth import check_kind_allowed, check_options_allowed
from millpond.producer.gateway.headers import media_type, read_traceparent
from millpond.producer.gateway.openapi import problem_responses
from millpond.producer.gateway.options import RequestOptions, read_query
from millpond.producer.gateway.problems import (
    ApiError,
    batch_too_large_error,
    internal_error,
    invalid_input_error,
    translate_error,
)
from millpond.producer.gateway.repeats import find_repeats
from millpond.producer.gateway.schemas import Accepted, accepted_json
from millpond.producer.gateway.state import State
from millpond.producer.gateway.tokens import Principal
from millpond.producer.message import Call, Message
from millpond.producer.send_outcomes import Sent
from millpond.tasks.contract import Contract, contract_of, contracts_by_kind, validate_fields
from millpond.tasks.errors import MillpondError

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Accepted, "description": "A duplicate: the id is that of the first task with this key"},
    **problem_responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
}
_DEFAULTS = RequestOptions()


class Arguments(BaseModel):
    """The arguments of a task of a Celery application."""

    model_config = ConfigDict(extra="forbid")

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class SendEndpoint:
    """Sends tasks of one kind, one for each request. Without a contract, the kind is a Celery task's."""

    def __init__(self, state: State, kind: str, contract: type[Contract] | None = None) -> None:
        self.kind, self.contract = kind, contract
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to one request. After an unexpected error, respond with 500 and raise the error.

        Raises `ApiError`.
        """
        try:
            response = await self.respond(scope, receive)
        except ApiError:
            raise
        except Exception:
            await internal_error().response()(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def respond(self, scope: Scope, receive: Receive) -> Response:
        """Send the task of one request and return the response. Raises `ApiError`."""
        principal = scope["state"]["principal"]
        check_kind_allowed(principal, self.kind)
        job = self._parse_body(await _read_body(scope, receive))
        query = scope["query_string"]
        options = read_query(RequestOptions, query) if query else _DEFAULTS
        check_options_allowed(principal, self.contract, options, options.overflow)
        try:
            message = options.to_message(job, read_traceparent(scope["headers"]), principal)
            if options.batch is not None:
                await self._state.owners.require_owner(principal, options.batch)
                await _require_room(self._state, message, options.batch, principal)
            send = _send_tracked if options.track else _send_message
            sent = await send(self._state, message, options, principal.name)
        except (MillpondError, ValueError) as error:
            raise translate_error(error, is_send=True) from None
        headers = {"Location": f"/tasks/{quote(sent.duplicate_of or sent.id)}"} if options.track else None
        status = 202 if sent.duplicate_of is None else 200
        return JSONResponse(accepted_json(sent), status, headers)

    def _parse_body(self, body: bytearray) -> Contract | Call:
        """Return the contract or call in a body. Raises `ApiError` 422 that names each field at fault."""
        try:
            model: type[Contract | Arguments] = self.contract or Arguments
            job = validate_fields(model, json_text.parse_json(body))
            json_text.require_finite(job, body)
            return Call(self.kind, *job.args, **job.kwargs) if isinstance(job, Arguments) else job
        except (ValueError, RecursionError) as error:
            raise invalid_input_error(error) from None


def endpoints(state: State) -> Mapping[str, SendEndpoint]:
    """Return the endpoint of each kind by its path. The kinds of a Celery application have none."""
    return {
        f"/send/{kind}": SendEndpoint(state, kind, contract)
        for kind, contract in sorted(contracts_by_kind().items())
    }


def routes(state: State) -> APIRouter:
    """Return a route for each kind, and one for the tasks of a Celery application."""
    router = APIRouter(tags=["send"])
    for path, endpoint in endpoints(state).items():
        _add_route(router, path, endpoint)

    @router.post("/send/{kind}", include_in_schema=False)
    async def send_other(kind: str, request: Request) -> Response:
        if kind not in state.app_tasks:
            contract_of(kind)  # raises `UnknownKind`, unless the kind was declared after the start
        return await SendEndpoint(state, kind).respond(request.scope, request.receive)

    return router


class _DirectRoute(APIRoute):
    """Calls the endpoint with the request alone. The other parameters of its signature are for OpenAPI."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint without FastAPI's reading and validation before it."""
        return partial(self.endpoint, job=None, options=None)


def _add_route(router: APIRouter, path: str, endpoint: SendEndpoint) -> None:
    """Add the route of one kind, described for OpenAPI by its contract."""
    contract = endpoint.contract
    assert contract is not None
    body: Any = Annotated[contract, Body(examples=[example_fields(contract)])]

    async def send(
        request: Request,
        job: body,  # noqa: ARG001
        options: Annotated[RequestOptions, Query()],  # noqa: ARG001
    ) -> Response:
        return await endpoint.respond(request.scope, request.receive)

    router.add_api_route(
        path,
        send,
        methods=["POST"],
        route_class_override=_DirectRoute,
        status_code=202,
        response_model=Accepted,
        responses=_ANSWERS,
        operation_id=f"send_{contract.kind}".replace(".", "_"),
        summary=f"Send {contract.kind}",
        description=contract.__doc__,
    )


async def _read_body(scope: Scope, receive: Receive) -> bytearray:
    """Return the body of a request, whose size `RequestGuard` bounds.

    Raises `ApiError` 415 for another media type, and 400 if the client disconnects before the end.
    """
    if media_type(Headers(scope=scope)) != "application/json":
        raise ApiError(415, "media_type", "send the contract with Content-Type: application/json")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "client_disconnected", "the body ended before its announced end")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _require_room(state: State, message: Message, batch: str, principal: Principal) -> None:
    """Raise `ApiError` 413 if a batch is full, unless the message repeats an accepted one."""
    if await state.owners.has_task_room(principal, batch, state.settings.max_batch_tasks):
        return
    call = partial(find_repeats, state.client.store, [message], state.app)
    if not all(await state.threads.lookups.run(principal.name, call)):
        raise batch_too_large_error(batch)


async def _send_message(state: State, message: Message, options: RequestOptions, token: str) -> Sent:
    return await state.batcher.send(message, token=token, overflow=options.overflow, batch=options.batch)


async def _send_tracked(state: State, message: Message, options: RequestOptions, token: str) -> Sent:
    """Send a task whose state and result are kept, in a record of its own like that of a batch.

    The record is opened before the send and closed after it, after a refusal too. Raises `ApiError` 409 if a
    task with the id is tracked already.
    """
    store, id = state.client.store, str(message.id)
    kind = message.contract.kind if isinstance(message.contract, Contract) else ""
    lookups = state.threads.lookups
    if not await lookups.run(token, lambda: task_result.open_record(store, id, kind)):
        raise ApiError(409, "id_in_use", f"a task {id} is tracked already: use another id, or once=…")
    try:
        batch = task_result.record_id(id)
        sent = await state.batcher.send(message, token=token, overflow=options.overflow, batch=batch)
    except Exception:
        await lookups.run(token, lambda: task_result.close_record(store, id))
        raise
    await lookups.run(token, lambda: task_result.close_record(store, id))
    return sent
