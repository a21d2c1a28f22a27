"""Build the application from the routes, with one OpenAPI document made from the contracts."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millpond.producer.examples import example_fields
from millpond.producer.gateway.openapi import add_token_scheme
from millpond.producer.gateway.problems import (
    ApiError,
    internal_error,
    invalid_fields_error,
    translate_error,
)
from millpond.producer.gateway.routes import batches, health, send, stream, tasks
from millpond.producer.gateway.schemas import KindView
from millpond.producer.gateway.state import State
from millpond.tasks.contract import contracts_by_kind, load_shipped_contracts
from millpond.tasks.errors import MillpondError
from millpond.tasks.module_loading import import_modules

_DESCRIPTION = """\
Send tasks to bounded queues, follow batches, cancel. A full queue is 429 with `Retry-After`; a \
duplicate is 200 with the first id; every error is `{"error": {"code", "message", …}}`."""


def application(state: State) -> FastAPI:
    """Return the application, with a route for each kind that is declared by now (see `load_contracts`)."""
    app = FastAPI(
        title="Millpond",
        version="1",
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    add_error_handlers(app)
    # Routes are matched in this order: the busiest come first.
    for module in (send, stream, batches, tasks, health):
        app.include_router(module.routes(state))
    app.include_router(_description_routes(app))
    return app


def add_error_handlers(app: FastAPI) -> None:
    """Make the application respond to every error with a problem in JSON."""
    for error_type in (HTTPException, RequestValidationError, MillpondError):
        app.add_exception_handler(error_type, _error_response)
    app.add_exception_handler(Exception, _internal_error_response)


def load_contracts(modules: tuple[str, ...]) -> None:
    """Import Millpond's contracts and those of the named modules. Raises `SettingsError`."""
    load_shipped_contracts()
    import_modules(modules, setting="gateway.contracts")


def _description_routes(app: FastAPI) -> APIRouter:
    """Return the routes that list the kinds and describe the gateway."""
    router = APIRouter(tags=["send"])

    @router.get("/kinds", response_model=list[KindView])
    async def list_kinds(request: Request) -> Any:
        """List the kinds that this token may send, with an example each."""
        return [
            KindView(
                kind=kind,
                queue=contract.queue,
                description=contract.__doc__ or "",
                example=example_fields(contract),
            )
            for kind, contract in sorted(contracts_by_kind().items())
            if request.state.principal.may_send(kind)
        ]

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(add_token_scheme(app.openapi()))

    return router


async def _error_response(_request: Request, error: Exception) -> JSONResponse:
    """Respond to an error of a route, to a request that is not valid, and to a path that does not exist.

    Raises an error of Millpond that the gateway does not expect. It is then answered as any other exception.
    """
    match error:
        case ApiError() | MillpondError():
            answer = translate_error(error)
        case HTTPException():
            message = f"{error.detail}: GET /openapi.json describes every route"
            code = f"http_{error.status_code}"
            answer = ApiError(error.status_code, code, message, headers=error.headers)
        case RequestValidationError():
            # The first part of a location is the part of the request: query, header, path or body.
            faults = error.errors()
            parts = [{**fault, "loc": fault["loc"][1:]} for fault in faults]
            answer = invalid_fields_error(parts, whole=str(faults[0]["loc"][0]))
        case _:
            raise error
    return answer.response()


async def _internal_error_response(_request: Request, _error: Exception) -> JSONResponse:
    """Respond to an error that the gateway does not expect. Its server logs the error."""
    return internal_error().response()
