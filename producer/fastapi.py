"""Millpond in a FastAPI application: a client for the life of the application, and a dependency for routes.

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders")
    def order(client: ClientDependency) -> str:
        return client.send(PackOrder(...)).id

Routes by `def` run in FastAPI's threads, in which a send that waits for room delays no other request. In an
`async def`, write `await run_in_threadpool(client.send, ...)`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Request

from millpond.producer.client import Client


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Client]]:
    """Open a client with the settings when the application starts, and close it when the application ends."""
    del app
    with Client() as client:
        yield {"millpond": client}


def get_client(request: Request) -> Client:
    """Return the application's client."""
    client: Client = request.state.millpond
    return client


#: The type of a route's argument that is the application's client.
ClientDependency = Annotated[Client, Depends(get_client)]
