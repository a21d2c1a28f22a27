"""Answer `POST /send/{kind}`: send one task, and say at once what became of it.

Each kind has a route of its own, so that OpenAPI shows its contract with an example. A full queue is never
waited for here: the answer is 429, with the time to come back.
"""

from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Body, Request
from starlette.responses import JSONResponse

from broker import tracking
from producer.examples import example
from producer.gateway.access import must_send
from producer.gateway.described import problems, query
from producer.gateway.feeding import accepted
from producer.gateway.gate import Gate
from producer.gateway.options import SingleOptions, read_query
from producer.gateway.refusals import explained, refusal
from producer.gateway.views import Accepted
from producer.outcomes import Sent
from tasks.contracts import Contract, contract_of, kinds
from tasks.errors import MillpondError

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Accepted, "description": "A task of this name was sent before: here is its id"},
    **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
}


def routes(gate: Gate) -> APIRouter:
    """Return a route for each kind that is known."""
    router = APIRouter(tags=["send"])
    for kind, contract in sorted(kinds().items()):
        _add(router, gate, kind, contract)

    @router.post("/send/{kind}", include_in_schema=False)
    async def unknown(kind: str) -> None:
        contract_of(kind)

    return router


def _add(router: APIRouter, gate: Gate, kind: str, contract: type[Contract]) -> None:
    body: Any = Annotated[contract, Body(examples=[example(contract)])]

    async def send(job: body, request: Request) -> JSONResponse:
        must_send(request.state.holder, kind)
        options = read_query(SingleOptions, request)
        try:
            sent = await (_send_tracked if options.track else _send)(gate, job, options)
        except (MillpondError, ValueError) as error:
            raise explained(error) from None
        headers = {"Location": f"/tasks/{quote(sent.duplicate_of or sent.id)}"} if options.track else None
        return JSONResponse(accepted(sent), 202 if sent.duplicate_of is None else 200, headers)

    router.post(
        f"/send/{kind}",
        status_code=202,
        response_model=Accepted,
        responses=_ANSWERS,
        operation_id=f"send_{kind}".replace(".", "_"),
        summary=f"Send {kind}",
        description=contract.__doc__,
        openapi_extra={"parameters": query(SingleOptions)},
    )(send)


async def _send(gate: Gate, job: Contract, options: SingleOptions) -> Sent:
    return await gate.sends.send(options.message(job), overflow=options.overflow, batch=options.batch)


async def _send_tracked(gate: Gate, job: Contract, options: SingleOptions) -> Sent:
    """Send a task with a record of its own, which is there before it and goes if it was not taken."""
    store, id = gate.client.store, options.id or str(uuid4())
    if not await gate.threads.look(lambda: tracking.begin(store, id, job.kind)):
        raise refusal(409, "known_id", f"a task {id} is tracked already: choose another id, or use once=…")
    message = options.model_copy(update={"id": id}).message(job)
    try:
        sent = await gate.sends.send(message, overflow=options.overflow, batch=tracking.record(id))
    except MillpondError:
        await gate.threads.look(lambda: tracking.end(store, id))
        raise
    await gate.threads.look(lambda: tracking.end(store, id))
    return sent
