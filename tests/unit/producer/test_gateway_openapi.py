"""The OpenAPI document of the gateway, from which clients are generated."""

from typing import Any
from unittest.mock import Mock

from fastapi import FastAPI

from millpond.producer.gateway.routes import batches, tasks


def test_operations_have_names_for_functions_of_a_client() -> None:
    """A generated client has `get_task`, not a name made of the path, and people read a summary."""
    app = FastAPI()
    app.include_router(tasks.routes(Mock()))
    app.include_router(batches.routes(Mock()))
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    operations = {
        f"{method} {path}": operation for path in paths for method, operation in paths[path].items()
    }
    assert {route: operation["operationId"] for route, operation in operations.items()} == {
        "get /tasks/{id}": "get_task",
        "post /tasks/{id}/cancel": "cancel_task",
        "post /batches": "open_batch",
        "get /batches/{id}": "get_batch",
        "post /batches/{id}/close": "close_batch",
        "post /batches/{id}/cancel": "cancel_batch",
        "get /batches/{id}/results": "stream_results",
    }
    assert operations["get /tasks/{id}"]["summary"] == "Read a task"
