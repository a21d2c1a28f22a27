"""`/tasks/{id}`: the state, progress and result of a task, and its cancellation.

The result of a task is kept if it was sent with `track`. The id of a task contains the name of its token, so
nothing is looked up before the request is allowed.
"""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from millpond.broker.batches import progress, record, task_result
from millpond.broker.connection import Store
from millpond.broker.control import cancel as control_cancel
from millpond.broker.inspect import task_lookup
from millpond.broker.inspect.effort import Effort
from millpond.broker.task_state import TaskState
from millpond.producer import json_text
from millpond.producer.gateway.auth import require_own_task
from millpond.producer.gateway.openapi import problem_responses
from millpond.producer.gateway.options import Id
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.schemas import CancelView, ProgressView, TaskView
from millpond.producer.gateway.state import State
from millpond.tasks.errors import UnknownBatch

#: How long a request waits for the acknowledgement of a cancellation by every worker.
ACK_TIMEOUT_SECONDS = 8.0

#: A search for a task reads the first messages of each list, in short calls to the server with rests between.
SMALL_EFFORT = Effort(page=200, max_count=4_000, pause_factor=4.0)

TaskId = Annotated[Id, Path(description="The id in the answer to the send.")]


def routes(state: State) -> APIRouter:
    """Return the routes of tasks."""
    router = APIRouter(
        tags=["tasks"],
        responses=problem_responses(401, 403, 422, 503),
        generate_unique_id_function=lambda route: route.name,
    )
    store = state.client.store

    @router.get(
        "/tasks/{id}", response_model=TaskView, summary="Read a task", responses=problem_responses(404)
    )
    async def get_task(id: TaskId, request: Request) -> Any:
        """Return the state, progress and result of a task, or 404 if nothing is known of it."""
        require_own_task(request.state.principal, id)
        view = await state.threads.searches.run(
            request.state.principal.name, lambda: read_task_view(store, id)
        )
        if view.state is TaskState.UNKNOWN and view.kind is None and view.progress is None:
            text = (
                f"task {id} has ended, never existed, or waits behind {SMALL_EFFORT.max_count} others: send "
                "it with track=true to know its state and keep its result"
            )
            raise ApiError(404, "unknown_task", text)
        return Response(json_text.to_text(view.model_dump()), media_type="application/json")

    @router.post("/tasks/{id}/cancel", response_model=CancelView, summary="Cancel a task")
    async def cancel_task(id: TaskId, request: Request) -> Any:
        """Prevent a task from starting, or ask a running one to stop; an ended task is not changed."""
        require_own_task(request.state.principal, id)
        return await state.threads.cancellations.run(
            request.state.principal.name,
            lambda: control_cancel.cancel_task(
                store, id, timeout_seconds=ACK_TIMEOUT_SECONDS, effort=SMALL_EFFORT
            ),
        )

    return router


def read_task_view(store: Store, task_id: str) -> TaskView:
    """Return the result of a task if it was kept, or else its state and progress.

    The search reads a bounded number of messages. A tracked task that is pending and was not found counts as
    ready. The state of any other task that was not found is unknown.
    """
    view, is_pending = TaskView(id=task_id, state=TaskState.UNKNOWN), False
    if (reported := progress.read_progress(store, task_id)) is not None:
        view.progress = ProgressView(done=reported.done, total=reported.total)
    with suppress(UnknownBatch):
        summary = record.read_summary(store, task_result.record_id(task_id))
        view.kind, is_pending = summary.description, summary.pending > 0
        for result in record.read_results(store, task_result.record_id(task_id), wait_ms=0, limit=1):
            view.state, view.value, view.error = result.state, result.value, result.error
            return view
    location = task_lookup.find_task(store, task_id, SMALL_EFFORT)
    if location is not None:
        view.kind, view.state = location.kind, location.state
    elif is_pending:
        view.state = TaskState.READY
    return view
