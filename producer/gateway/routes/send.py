"""Answer `POST /send/{kind}`: send one task, and say at once what became of it.

A `Single` reads the request and answers. Each kind has a route of its own, so that OpenAPI shows its contract
with an example. A full queue is never waited for here: the answer is 429, with the time to come back.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Body, Request
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope

from millpond.broker.batches import task_result
from millpond.producer.examples import example
from millpond.producer.gateway.auth import must_send
from millpond.producer.gateway.openapi import problems, query
from millpond.producer.gateway.options import SingleOptions, read_query
from millpond.producer.gateway.problems import bad_fields, explained, refusal
from millpond.producer.gateway.schemas import Accepted
from millpond.producer.gateway.state import Gate
from millpond.producer.gateway.stream_sender import accepted
from millpond.producer.gateway.trace_context import traceparent
from millpond.producer.send_outcomes import Sent
from millpond.tasks.contract import Contract, contract_of, kinds
from millpond.tasks.errors import MillpondError

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Accepted, "description": "A task of this name was sent before: here is its id"},
    **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
}
_PLAIN = SingleOptions()
_MISFIT = "this request does not fit"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Single:
    """Send tasks of one kind, a request each."""

    def __init__(self, gate: Gate, contract: type[Contract]) -> None:
        self.contract = contract
        self._gate = gate

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Return the answer to one request. Raises `Refusal`."""
        asks = scope["state"]["holder"]
        must_send(asks, self.contract.kind)
        job = self._checked(await _body(scope, receive))
        asked = scope["query_string"]
        options = read_query(SingleOptions, asked) if asked else _PLAIN
        if options.batch is not None:
            await self._gate.owners.must_own(asks, options.batch)
        try:
            send = _send_tracked if options.track else _send
            sent = await send(self._gate, job, options, traceparent(scope["headers"]))
        except (MillpondError, ValueError) as error:
            raise explained(error) from None
        headers = {"Location": f"/tasks/{quote(sent.duplicate_of or sent.id)}"} if options.track else None
        status = 202 if sent.duplicate_of is None else 200
        return Response(_encode(accepted(sent)), status, headers, "application/json")

    def _checked(self, body: bytearray) -> Contract:
        try:
            return self.contract.model_validate(json.loads(body))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            raise bad_fields(faults, what=_MISFIT) from None
        except (ValueError, RecursionError):
            raise bad_fields([{"loc": (), "msg": "the body is no JSON"}], what=_MISFIT) from None


def singles(gate: Gate) -> Mapping[str, Single]:
    """Return what answers each path of a kind that is known."""
    return {f"/send/{kind}": Single(gate, contract) for kind, contract in sorted(kinds().items())}


def routes(gate: Gate) -> APIRouter:
    """Return a route for each kind that is known."""
    router = APIRouter(tags=["send"])
    for path, single in singles(gate).items():
        _add(router, path, single)

    @router.post("/send/{kind}", include_in_schema=False)
    async def unknown(kind: str) -> None:
        contract_of(kind)

    return router


class _ByItself(APIRoute):
    """Let the endpoint read the request; what else its signature names is for OpenAPI alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint without FastAPI's reading and checking before it."""
        return partial(self.endpoint, job=None)


def _add(router: APIRouter, path: str, single: Single) -> None:
    contract = single.contract
    body: Any = Annotated[contract, Body(examples=[example(contract)])]

    async def send(request: Request, job: body) -> Response:  # noqa: ARG001
        return await single.answer(request.scope, request.receive)

    router.add_api_route(
        path,
        send,
        methods=["POST"],
        route_class_override=_ByItself,
        status_code=202,
        response_model=Accepted,
        responses=_ANSWERS,
        operation_id=f"send_{contract.kind}".replace(".", "_"),
        summary=f"Send {contract.kind}",
        description=contract.__doc__,
        openapi_extra={"parameters": query(SingleOptions)},
    )


async def _body(scope: Scope, receive: Receive) -> bytearray:
    """Read the body of a request, which its guard bounds."""
    media, _, _ = Headers(scope=scope).get("content-type", "").partition(";")
    if media.strip().lower() != "application/json":
        raise refusal(415, "media_type", "send the contract with Content-Type: application/json")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise refusal(400, "left", "the body ended before its announced end")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _send(gate: Gate, job: Contract, options: SingleOptions, trace: str | None) -> Sent:
    message = options.message(job, trace)
    return await gate.sends.send(message, overflow=options.overflow, batch=options.batch)


async def _send_tracked(gate: Gate, job: Contract, options: SingleOptions, trace: str | None) -> Sent:
    """Send a task with a record of its own, which is there before it and goes if it was not taken."""
    store, id = gate.client.store, options.id or str(uuid4())
    if not await gate.threads.look(lambda: task_result.open_record(store, id, job.kind)):
        raise refusal(409, "known_id", f"a task {id} is tracked already: choose another id, or use once=…")
    message = options.model_copy(update={"id": id}).message(job, trace)
    try:
        sent = await gate.sends.send(message, overflow=options.overflow, batch=task_result.record_id(id))
    except MillpondError:
        await gate.threads.look(lambda: task_result.close_record(store, id))
        raise
    await gate.threads.look(lambda: task_result.close_record(store, id))
    return sent
