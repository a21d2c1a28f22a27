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

    Exit code 0: it is ready, delayed or running. 1: it is a dead letter, has ended or never was. The result
    of a task of a batch is among the results of the batch.
    """
    from millpond.broker import audit
    from millpond.producer.cli.client_session import open_client

    with open_client() as client:
        if cancel or terminate:
            answer = client.cancel(id, terminate=terminate)
            audit.record_command(client.store, f"{'terminated' if terminate else 'cancelled'} task {id}")
            print_result(
                _task_as_json(id, answer.found, None, answer), _cancellation_text(id, answer), as_json
            )
            print_unacknowledged(answer.unacknowledged)
            has_ended = answer.found is None or answer.found.state is TaskState.DEAD
            raise typer.Exit(1 if has_ended or answer.unacknowledged else 0)
        location = _follow_task(client, id, as_json) if follow else _show_task(client, id, as_json)
    raise typer.Exit(1 if location is None or location.state is TaskState.DEAD else 0)


def _show_task(client: "Client", id: str, as_json: bool) -> "TaskLocation | None":
    """Print a task and return its location."""
    location, progress = client.find(id), client.progress(id)
    print_result(
        _task_as_json(id, location, progress), _task_as_text(id, location, progress, client.now_ms()), as_json
    )
    return location


def _follow_task(client: "Client", id: str, as_json: bool) -> "TaskLocation | None":
    """Print every change until the task is not found. Return its last location."""
    import time

    printed, last = None, None
    while True:
        location, progress = client.find(id), client.progress(id)
        now = (location and (location.state, location.process), progress)
        if now != printed:
            printed = now
            print_result(
                _task_as_json(id, location, progress),
                _task_as_text(id, location, progress, client.now_ms()),
                as_json,
            )
        if location is None or location.state is TaskState.DEAD:
            return location or last
        last = location
        time.sleep(POLL_SECONDS)


def _task_as_json(
    id: str,
    location: "TaskLocation | None",
    progress: "Progress | None",
    answer: "Cancellation | None" = None,
) -> dict[str, Any]:
    """Return a task as a JSON object. `answer` is the result of its cancellation."""
    from dataclasses import asdict

    line: dict[str, Any] = {"id": id, "state": "unknown", **(asdict(location) if location else {})}
    line["progress"] = asdict(progress) if progress else None
    if answer is not None:
        line |= {"settled": answer.settled, "unacknowledged": list(answer.unacknowledged)}
    return line


def _task_as_text(id: str, location: "TaskLocation | None", progress: "Progress | None", now_ms: int) -> str:
    """Return a task as a line for people: its state, its location and its progress."""
    if location is None:
        return f"{id}: not found, so it has ended or never was; its batch has its result: millpond batch ID"
    match location.state:
        case TaskState.READY:
            where = f"ready on {location.queue}, {location.behind:,} before it"
        case TaskState.DELAYED:
            seconds = max(0, (location.due_ms or 0) - now_ms) / 1000
            what = "a process that has its kind, at most " if location.wants_kind else ""
            where = f"waits on {location.queue} for {what}{seconds:,.1f} s"
        case TaskState.RUNNING:
            where = f"running, or about to, in {location.process}"
        case _:
            letter = f"{location.queue} {location.letter}"
            where = f"a dead letter; why: millpond dead show {letter}"
    text = f"{id} ({location.kind}): {where}"
    if progress is None or location.state is not TaskState.RUNNING:
        return text
    of = f" of {progress.total:,}" if progress.total is not None else ""
    return f"{text}, {progress.done:,}{of} done"


def _cancellation_text(id: str, answer: "Cancellation") -> str:
    """Return the result of a cancellation as a line for people."""
    if answer.found is None:
        return f"{id}: not found, so it has ended or never was"
    if answer.found.state is TaskState.DEAD:
        letter = f"{answer.found.queue} {answer.found.letter}"
        return f"{id}: already a dead letter; look at it with: millpond dead show {letter}"
    if answer.settled:
        return f"{id}: cancelled before it started"
    return f"{id}: cancelled; {answer.found.process or 'its worker'} drops it unless it has already started"
