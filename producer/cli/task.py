"""`millpond task ID`: show the state and progress of a task, follow it, cancel it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.broker.task_state import TaskState
from millpond.producer.cli.batch import print_result, print_unacknowledged
from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.broker.batches.progress import Progress
    from millpond.broker.control.cancel import Cancellation
    from millpond.broker.inspect.task_lookup import TaskLocation
    from millpond.producer.client import Client

app = typer.Typer()

_NOT_FOUND = "not found, so it has ended or never existed"

#: The time between two reads of a followed task; progress is reported less often.
POLL_SECONDS = 0.5


@app.command(epilog="Example: millpond task 2f6c… --follow")
def task(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id that the send returned.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print every change until it has ended.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Prevent it from starting; if it runs, ask it to stop.")
    ] = False,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Cancel it, and kill it if it runs on a prefork pool.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the state and progress of a task.

    Exit code 0: it is ready, delayed or running. 1: it is a dead letter, has ended or never existed. The
    result of a task of a batch is among the results of the batch.
    """
    from millpond.producer.cli.client_session import open_client

    with open_client() as client:
        if cancel or terminate:
            cancellation = _cancel_task(client, id, as_json, terminate=terminate)
            location, unacknowledged = cancellation.found, cancellation.unacknowledged
        else:
            location, unacknowledged = _follow_task(client, id, as_json, once=not follow), ()
    has_ended = location is None or location.state is TaskState.DEAD
    raise typer.Exit(1 if has_ended or unacknowledged else 0)


def _cancel_task(client: "Client", task_id: str, as_json: bool, *, terminate: bool) -> "Cancellation":
    """Cancel a task, record the command in the audit log, and print the result."""
    from millpond.broker import audit

    cancellation = client.cancel(task_id, terminate=terminate)
    audit.record_command(client.store, f"{'terminated' if terminate else 'cancelled'} task {task_id}")
    fields = _task_as_json(task_id, cancellation.found, None)
    unacknowledged = list(cancellation.unacknowledged)
    fields |= {"settled": cancellation.settled, "unacknowledged": unacknowledged}
    print_result(fields, _cancellation_text(task_id, cancellation), as_json)
    print_unacknowledged(cancellation.unacknowledged)
    return cancellation


def _follow_task(client: "Client", task_id: str, as_json: bool, *, once: bool) -> "TaskLocation | None":
    """Print every change of a task until it is not found or is a dead letter. Return its last location.

    With `once`, print the present state and return. A task that was never found has the location None.
    """
    import time

    printed, last_location = None, None
    while True:
        location, progress = client.find(task_id), client.progress(task_id)
        state = (location and (location.state, location.process), progress)
        if state != printed:
            printed = state
            text = _task_as_text(task_id, location, progress, client.now_ms())
            print_result(_task_as_json(task_id, location, progress), text, as_json)
        if once or location is None or location.state is TaskState.DEAD:
            return location or last_location
        last_location = location
        time.sleep(POLL_SECONDS)


def _task_as_json(
    task_id: str, location: "TaskLocation | None", progress: "Progress | None"
) -> dict[str, Any]:
    """Return a task as a JSON object. Its state is "unknown" without a location."""
    from dataclasses import asdict

    fields: dict[str, Any] = {"id": task_id, "state": "unknown", **(asdict(location) if location else {})}
    return {**fields, "progress": asdict(progress) if progress else None}


def _task_as_text(
    task_id: str, location: "TaskLocation | None", progress: "Progress | None", now_ms: int
) -> str:
    """Return a task as a line for people: its state, its location, and its progress if it runs.

    `now_ms` is the broker's time.
    """
    if location is None:
        return f"{task_id}: {_NOT_FOUND}; its batch has its result: millpond batch ID"
    match location.state:
        case TaskState.READY:
            state = f"ready on {location.queue}, {location.behind:,} before it"
        case TaskState.DELAYED:
            seconds = max(0, (location.due_ms or 0) - now_ms) / 1000
            event = "a process that has its kind, at most " if location.wants_kind else ""
            state = f"waits on {location.queue} for {event}{seconds:,.1f} s"
        case TaskState.RUNNING:
            state = f"running, or about to, in {location.process}"
        case _:
            state = f"a dead letter; why: millpond dead show {location.queue} {location.letter}"
    text = f"{task_id} ({location.kind}): {state}"
    if progress is None or location.state is not TaskState.RUNNING:
        return text
    total = f" of {progress.total:,}" if progress.total is not None else ""
    return f"{text}, {progress.done:,}{total} done"


def _cancellation_text(task_id: str, cancellation: "Cancellation") -> str:
    """Return the result of a cancellation as a line for people."""
    location = cancellation.found
    if location is None:
        return f"{task_id}: {_NOT_FOUND}"
    if location.state is TaskState.DEAD:
        letter = f"{location.queue} {location.letter}"
        return f"{task_id}: already a dead letter; look at it with: millpond dead show {letter}"
    if cancellation.settled:
        return f"{task_id}: cancelled before it started"
    return f"{task_id}: cancelled; {location.process or 'its worker'} drops it unless it has already started"
