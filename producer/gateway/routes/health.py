"""`/health/live`, `/health/ready` and `/metrics`.

Live: the event loop runs. Ready: the broker replies and the gateway is not stopping.
"""

import asyncio
import time

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from millpond.broker.server import server_time_ms
from millpond.producer.gateway.openapi import OPEN
from millpond.producer.gateway.schemas import HealthView
from millpond.producer.gateway.state import State
from millpond.tasks.errors import BrokerError
from millpond.tasks.process.prometheus_text import CONTENT_TYPE, format_metrics

#: How long the gateway waits for the broker's reply before it counts as away.
BROKER_SECONDS = 2.0
#: How long the last check of the broker is cached, so that probes cost the broker nothing.
CACHE_SECONDS = 1.0


def routes(state: State) -> APIRouter:
    """Return the routes of health and metrics. Those below `/health` need no token."""
    router = APIRouter(tags=["health"])
    checked_at, is_reachable = float("-inf"), False

    @router.get("/health/live", response_model=HealthView, openapi_extra=OPEN)
    async def live() -> HealthView:
        """Answer while the gateway runs; restart it when this answer does not come."""
        return HealthView(status="live")

    @router.get(
        "/health/ready", response_model=HealthView, responses={503: {"model": HealthView}}, openapi_extra=OPEN
    )
    async def ready() -> JSONResponse:
        """Answer 200 while requests may be sent here."""
        nonlocal checked_at, is_reachable
        if time.monotonic() - checked_at > CACHE_SECONDS:
            is_reachable, checked_at = await _broker_answers(state), time.monotonic()
        if is_reachable and not state.stopping.is_set():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "stopping" if state.stopping.is_set() else "broker_away"}, 503)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(format_metrics(state.metrics.metrics()), media_type=CONTENT_TYPE)

    return router


async def _broker_answers(state: State) -> bool:
    """True if the broker replies within `BROKER_SECONDS`."""
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            await asyncio.get_running_loop().run_in_executor(
                state.threads.probes, server_time_ms, state.client.store
            )
    except (BrokerError, TimeoutError):
        return False
    return True
