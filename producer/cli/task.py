"""Offer `millpond task ID`: where a task is, how far it got; follow it, cancel it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.broker.task_state import TaskState
from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.broker.batches.progress import Progress
    from millpond.broker.control.cancel import Cancellation
    from millpond.broker.inspect.task_lookup import TaskLocation
    from millpond.producer.client import Client

app = typer.Typer()

#: Seconds between two looks; a task reports less often.
LOOK_SECONDS = 0.5


@app.command(epilog="Example: millpond task 2f6c… --follow")
def task(
    id: Annotated[str, typer.Argument(metavar="ID", help="As sending it returned it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it has ended.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Let it not start; if it runs, it is told to stop.")
    ] = False,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Cancel it, and end it if it runs on a prefork pool.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where a task is and how far it got.

    Exits with 0 while it waits, runs or is delayed; with 1 when it is a dead letter, or is not there: it has
    ended, or never was. How a task of a batch ended is in the results of its batch.
    """
    from millpond.broker import audit
    from millpond.producer.cli.batch import print_unacknowledged
    from millpond.producer.cli.client_session import configured

    with configured() as client:
        if cancel or terminate:
            answer = client.cancel(id, terminate=terminate)
            audit.record_command(client.store, f"{'terminated' if terminate else 'cancelled'} task {id}")
            _print(_as_object(id, answer.found, None, answer), _cancelled(id, answer), as_json)
            print_unacknowledged(answer.unacknowledged)
            over = answer.found is None or answer.found.state is TaskState.DEAD
            raise typer.Exit(1 if over or answer.unacknowledged else 0)
        place = _follow(client, id, as_json) if follow else _show(client, id, as_json)
    raise typer.Exit(1 if place is None or place.state is TaskState.DEAD else 0)


def _show(client: "Client", id: str, as_json: bool) -> "TaskLocation | None":
    place, progress = client.find(id), client.progress(id)
    _print(_as_object(id, place, progress), _in_words(id, place, progress, client.now_ms()), as_json)
    return place


def _follow(client: "Client", id: str, as_json: bool) -> "TaskLocation | None":
    """Tell of every change until the task is no longer there; return where it was last seen."""
    import time

    told, before = None, None
    while True:
        place, progress = client.find(id), client.progress(id)
        now = (place and (place.state, place.process), progress)
        if now != told:
            told = now
            _print(_as_object(id, place, progress), _in_words(id, place, progress, client.now_ms()), as_json)
        if place is None or place.state is TaskState.DEAD:
            return place or before
        before = place
        time.sleep(LOOK_SECONDS)


def _as_object(
    id: str, place: "TaskLocation | None", progress: "Progress | None", answer: "Cancellation | None" = None
) -> dict[str, Any]:
    from dataclasses import asdict

    line: dict[str, Any] = {"id": id, "state": "unknown", **(asdict(place) if place else {})}
    line["progress"] = asdict(progress) if progress else None
    if answer is not None:
        line |= {"settled": answer.settled, "unacknowledged": list(answer.unacknowledged)}
    return line


def _in_words(id: str, place: "TaskLocation | None", progress: "Progress | None", now_ms: int) -> str:
    if place is None:
        return f"{id}: not there, so it has ended or never was; look into its batch: millpond batch ID"
    match place.state:
        case TaskState.READY:
            where = f"waits on {place.queue}, {place.behind:,} before it"
        case TaskState.DELAYED:
            seconds = max(0, (place.due_ms or 0) - now_ms) / 1000
            what = "a process that has its kind, at most " if place.wants_kind else ""
            where = f"waits on {place.queue} for {what}{seconds:,.1f} s"
        case TaskState.RUNNING:
            where = f"held by {place.process}, which runs it or is about to"
        case _:
            letter = f"{place.queue} {place.letter}"
            where = f"a dead letter; why: millpond dead show {letter}"
    said = f"{id} ({place.kind}): {where}"
    if progress is None or place.state is not TaskState.RUNNING:
        return said
    of = f" of {progress.total:,}" if progress.total is not None else ""
    return f"{said}, {progress.done:,}{of} done"


def _cancelled(id: str, answer: "Cancellation") -> str:
    if answer.found is None:
        return f"{id}: not there, so it has ended or never was"
    if answer.found.state is TaskState.DEAD:
        found = answer.found
        return (
            f"{id}: already a dead letter; look at it with: millpond dead show {found.queue} {found.letter}"
        )
    if answer.settled:
        return f"{id}: cancelled, it had not started"
    return f"{id}: cancelled; what {answer.found.process or 'its worker'} has not started it drops"


def _print(value: dict[str, Any], text: str, as_json: bool) -> None:
    import json

    print(json.dumps(value) if as_json else text, flush=True)
