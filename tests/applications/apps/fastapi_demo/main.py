"""A FastAPI demo: one university, or several at once, or in their own queue."""

from typing import Any

from celery import Celery, group, shared_task
from celery.result import AsyncResult
from fastapi import FastAPI
from settings import settings

celery = Celery(__name__)
celery.config_from_object(settings, namespace="CELERY")
celery.set_default()  # also in the threads of routes
app = FastAPI()


@shared_task(
    bind=True,
    name="universities:one",
    autoretry_for=(ConnectionError,),
    retry_backoff=0.1,
    retry_jitter=False,
    retry_kwargs={"max_retries": 3},
)
def one(self: Any, country: str) -> list[str]:
    if country == "unreachable" and self.request.retries < 2:
        raise ConnectionError(country)
    return [f"{country} {self.request.retries}", self.request.delivery_info["routing_key"]]


@app.post("/universities/{country}")
def start(country: str) -> dict[str, str]:
    return {"id": one.apply_async((country,)).id}


@app.get("/tasks/{id}")
def status(id: str) -> dict[str, Any]:
    result = AsyncResult(id, app=celery)
    return {
        "state": result.state,
        "value": result.result if result.successful() else None,
        "name": result.name,
    }


@app.get("/parallel")
def parallel(countries: str) -> list[Any]:
    return group(one.s(each) for each in countries.split(","))().get(30)
