"""The routes."""

from typing import Any

from celery.result import AsyncResult
from flask import Blueprint, request

from task_app import tasks

bp = Blueprint("tasks", __name__, url_prefix="/tasks")


@bp.get("/result/<id>")
def result(id: str) -> dict[str, Any]:
    found = AsyncResult(id)
    ready = found.ready()
    return {
        "ready": ready,
        "successful": found.successful() if ready else None,
        "value": found.get() if ready else found.result,
    }


@bp.post("/add")
def add() -> dict[str, Any]:
    return {"result_id": tasks.add.delay(request.form.get("a", type=int), request.form.get("b", type=int)).id}


@bp.post("/block")
def block() -> dict[str, Any]:
    return {"result_id": tasks.block.delay().id}


@bp.post("/process")
def process() -> dict[str, Any]:
    return {"result_id": tasks.process.delay(total=request.form.get("total", type=int)).id}


@bp.post("/greeting")
def greeting() -> dict[str, Any]:
    return {"result_id": tasks.greeting.delay().id}
