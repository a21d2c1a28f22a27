"""Put the routes together, and their description: one OpenAPI document, made from the contracts."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millpond.producer.examples import example
from millpond.producer.gateway.openapi import with_tokens
from millpond.producer.gateway.problems import Fault, Refusal, bad_fields, explained, surprised
from millpond.producer.gateway.routes import batches, health, metrics, send, send_stream, tasks
from millpond.producer.gateway.schemas import KindView
from millpond.producer.gateway.state import Gate
from millpond.tasks.contract import kinds, load_shipped
from millpond.tasks.errors import MillpondError
from millpond.tasks.module_loading import declare

_ABOUT = """Send tasks to bounded queues, follow batches, cancel. A full queue is 429 with `Retry-After`; a \
duplicate is 200 with the first id; every problem is `{"error": {"code", "message", …}}`."""


def application(gate: Gate) -> FastAPI:
    """Return the application; every contract must have been declared."""
    app = FastAPI(
        title="Millpond", version="1", description=_ABOUT, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misfit)
    app.add_exception_handler(MillpondError, _raised)
    app.add_exception_handler(Exception, _surprised)
    # Routes are tried in this order, so those that are asked most come first.
    for part in (send, send_stream, batches, tasks, health, metrics):
        app.include_router(part.routes(gate))
    app.include_router(_descriptions(app))
    return app


def load_contracts(modules: tuple[str, ...]) -> None:
    """Import Millpond's contracts and those of the modules named. Raises `SettingsError`."""
    load_shipped()
    declare(modules, setting="gateway.contracts")


def _descriptions(app: FastAPI) -> APIRouter:
    router = APIRouter(tags=["send"])

    @router.get("/kinds", response_model=list[KindView])
    async def list_kinds(request: Request) -> Any:
        """List the kinds that this token may send, with an example each."""
        return [
            KindView(
                kind=kind, queue=contract.queue, description=contract.__doc__ or "", example=example(contract)
            )
            for kind, contract in sorted(kinds().items())
            if request.state.holder.may(kind)
        ]

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(with_tokens(app.openapi()))

    return router


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Refusal):
        return error.answer()
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: GET /openapi.json names every route, and what it takes"
    fault = Fault(code=f"http_{error.status_code}", message=message)
    return Refusal(error.status_code, fault, error.headers).answer()


async def _misfit(_request: Request, error: Exception) -> JSONResponse:
    """Name each field at fault, without its value, which may be a mail or a secret."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    # A sender names a field without where in the request it was.
    inner = [{**fault, "loc": fault["loc"][1:]} for fault in faults]
    return bad_fields(inner, what="this request does not fit").answer()


async def _raised(_request: Request, error: Exception) -> JSONResponse:
    return explained(error).answer()


async def _surprised(_request: Request, _error: Exception) -> JSONResponse:
    return surprised().answer()
