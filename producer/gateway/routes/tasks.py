"""Answer `/tasks/{id}`: where a task is, how far it got, what became of it, and its cancelling.

How a task ended is kept if it was sent with `track`. The kind of one that is not found any more is not known,
so only a token for every kind may ask for it or cancel it.
"""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from millpond.broker.batches import progress, record, task_result
from millpond.broker.connection import Store
from millpond.broker.control import cancel as control_cancel
from millpond.broker.inspect import task_lookup
from millpond.broker.task_state import TaskState
from millpond.producer.gateway.auth import must_send
from millpond.producer.gateway.openapi import problems
from millpond.producer.gateway.options import Id
from millpond.producer.gateway.problems import explained, refusal
from millpond.producer.gateway.schemas import CancelView, ProgressView, TaskView
from millpond.producer.gateway.state import Gate
from millpond.producer.gateway.tokens import Holder
from millpond.tasks.errors import BrokerError, UnknownBatch

#: How long a request waits until every worker has heard of a cancellation.
ACK_TIMEOUT_SECONDS = 8.0

TaskId = Annotated[Id, Path(description="As it was answered when the task was sent.")]


def routes(gate: Gate) -> APIRouter:
    """Return the routes of tasks."""
    router = APIRouter(tags=["tasks"], responses=problems(401, 403, 422, 503))
    store = gate.client.store

    @router.get("/tasks/{id}", response_model=TaskView, responses=problems(404))
    async def task(id: TaskId, request: Request) -> Any:
        """Tell how a task ended, what it gave back, or how far it got."""
        try:
            view = await gate.threads.look(lambda: look(store, id))
        except BrokerError as error:
            raise explained(error) from None
        _must_see(request.state.holder, view)
        if view.state is TaskState.UNKNOWN and view.kind is None and view.progress is None:
            text = f"task {id} has ended or never was: send with track=true to have its end and result kept"
            raise refusal(404, "unknown_task", text)
        return view

    @router.post("/tasks/{id}/cancel", response_model=CancelView)
    async def cancel(id: TaskId, request: Request) -> Any:
        """Do not start it; if it runs, it is told. One that has ended is not changed."""
        try:
            view = await gate.threads.look(lambda: look(store, id))
            _must_see(request.state.holder, view)
            done = await gate.threads.cancel(
                lambda: control_cancel.cancel_task(store, id, timeout_seconds=ACK_TIMEOUT_SECONDS)
            )
        except BrokerError as error:
            raise explained(error) from None
        return CancelView(unacknowledged=list(done.unacknowledged))

    return router


def look(store: Store, id: str) -> TaskView:
    """Return what is known of a task: how it ended, or else where it is."""
    far = progress.progress(store, id)
    view = TaskView(
        id=id, state=TaskState.UNKNOWN, progress=far and ProgressView(done=far.done, total=far.total)
    )
    with suppress(UnknownBatch):
        view.kind = record.summary(store, task_result.record_id(id)).description
        for result in record.results(store, task_result.record_id(id), wait_ms=0, limit=1):
            view.state, view.value, view.error = result.state, result.value, result.error
            return view
    place = task_lookup.find(store, id)
    if place is not None:
        view.kind, view.state = place.kind, place.state
    return view


def _must_see(asks: Holder, view: TaskView) -> None:
    if view.kind is not None:
        must_send(asks, view.kind)
    elif not asks.may_all:
        text = f"this task has ended or never was, so nobody knows whether {asks.name} may see it"
        raise refusal(403, "unknown_kind_of_task", text)
