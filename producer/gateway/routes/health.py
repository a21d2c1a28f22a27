"""Answer `/health/live` and `/health/ready`: the loop turns; the broker answers and nobody has said stop."""

import asyncio
import time

from fastapi import APIRouter
from starlette.responses import JSONResponse

from millpond.broker.server import now_ms
from millpond.producer.gateway.openapi import OPEN
from millpond.producer.gateway.schemas import HealthView
from millpond.producer.gateway.state import Gate
from millpond.tasks.errors import BrokerError

BROKER_SECONDS = 2.0
#: What the broker answered is believed so long, so that probes cost it nothing.
KEEP_SECONDS = 1.0


def routes(gate: Gate) -> APIRouter:
    """Return the two routes, which need no token."""
    router = APIRouter(tags=["health"], prefix="/health")
    asked_at, answered = float("-inf"), False

    @router.get("/live", response_model=HealthView, openapi_extra=OPEN)
    async def live() -> HealthView:
        """Say that the gateway runs; restart it when this does not come."""
        return HealthView(status="live")

    @router.get(
        "/ready", response_model=HealthView, responses={503: {"model": HealthView}}, openapi_extra=OPEN
    )
    async def ready() -> JSONResponse:
        """Say whether to send requests here."""
        nonlocal asked_at, answered
        if time.monotonic() - asked_at > KEEP_SECONDS:
            answered, asked_at = await _answers(gate), time.monotonic()
        if gate.stopping.is_set():
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse(*(({"status": "ready"}, 200) if answered else ({"status": "broker_away"}, 503)))

    return router


async def _answers(gate: Gate) -> bool:
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            await gate.threads.look(lambda: now_ms(gate.client.store))
    except (BrokerError, TimeoutError):
        return False
    return True
