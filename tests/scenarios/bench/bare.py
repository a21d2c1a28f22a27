"""Serve one bare FastAPI route that validates the same contract and sends nothing: the cost of HTTP alone."""

import sys

import uvicorn
from fastapi import FastAPI

from millpond.producer.gateway.schemas import Accepted
from millpond.tasks.squares.contract import Square

app = FastAPI(openapi_url=None)


@app.post("/send/squares.square", status_code=202)
async def send(job: Square) -> Accepted:
    """Respond as the gateway does."""
    return Accepted(id=f"0b8e6c1c-0000-4000-8000-{job.n:012}", queue=job.queue, duplicate=False)


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="asyncio",
        access_log=False,
        log_level="warning",
        lifespan="off",
    )
