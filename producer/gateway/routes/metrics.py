"""Answer `GET /metrics`: what the gateway was asked, as Prometheus reads it, to whoever holds a token."""

from fastapi import APIRouter
from starlette.responses import Response

from millpond.producer.gateway.state import Gate
from millpond.tasks.process.prometheus_text import CONTENT_TYPE, exposition


def routes(gate: Gate) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(gate.figures.metrics()), media_type=CONTENT_TYPE)

    return router
