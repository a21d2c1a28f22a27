"""A FastAPI application that sends tasks.

MILLPOND_KINDS=shop_kinds millpond worker default      # where this file lies
MILLPOND_KINDS=shop_kinds uvicorn shop:app
"""

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from shop_kinds import PackOrder

from millpond.producer.fastapi import ClientDependency, lifespan

app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
def order(job: PackOrder, client: ClientDependency) -> dict[str, str]:
    """Send a task, whose contract is the body of the request. Waits while the queue is full."""
    return {"id": client.send(job).id}


@app.post("/deliveries", status_code=202)
async def delivery(jobs: list[PackOrder], client: ClientDependency) -> dict[str, str]:
    """Send a batch from a coroutine."""

    def send() -> str:
        with client.batch("a delivery") as batch:
            batch.send_many(jobs)
        return batch.id

    return {"batch": await run_in_threadpool(send)}


@app.get("/deliveries/{id}")
def delivered(id: str, client: ClientDependency) -> list[str]:
    """Wait until a batch is complete, and return the results of its tasks."""
    return sorted(result.value for result in client.open_batch(id).results())
