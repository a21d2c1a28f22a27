"""`millpond adopt`: take in messages that stock workers left unacknowledged, or hand delayed ones back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.monitor.cli.store import open_store, require_queue
from millpond.tasks.errors import BadInput, BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millpond.broker.connection import Store
    from millpond.broker.stock_unacked import Unacked

app = typer.Typer()

#: The time that workers have to reply which tasks they have.
REPLY_SECONDS = 3.0


@app.command(epilog="Example: millpond adopt celery")
def adopt(
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", help="Queues; all of the database if none is named."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Take in also messages that a stock worker says it has: they run twice."),
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Hand the delayed messages of the queues to stock workers instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a queue.")] = False,
) -> None:
    """Take in the messages that stock workers left unacknowledged, without counting a delivery.

    Ready messages need nothing: Millpond reads the lists that stock clients fill. Taken in are messages that
    no worker says it has; a worker without a reply counts as gone. A message with an ETA that a stock
    worker kept in its memory is among them, and waits in the broker from then on.
    """
    import json

    from millpond.broker import audit

    if back and everything:
        raise BadInput(
            "--all is for messages to take in, and --back hands messages back: leave out one of them"
        )
    with open_store() as store:
        rows = (
            _make_delayed_ready(store, queues or ())
            if back
            else _adopt_messages(store, queues or (), everything)
        )
        change = "handed back to stock workers" if back else "took in from stock workers"
        if moved := sum(row["handed_back" if back else "taken_in"] for row in rows):
            audit.record_command(store, f"{change}: {moved} messages")
    for row in rows:
        print(json.dumps(row) if as_json else _row_text(row))
    if not rows and not as_json:
        print("no queue has delayed messages" if back else "stock workers left no message unacknowledged")


def _adopt_messages(store: "Store", queues: "Iterable[str]", everything: bool) -> list[dict[str, Any]]:
    """Take in the unacknowledged messages of these queues, or of all queues if none is named.

    Messages that a worker has are left, unless `everything`. Return a row for each queue. Raises
    `UnknownQueue`.
    """
    from millpond.broker.inspect.depth import read_depth
    from millpond.broker.server import server_time_ms
    from millpond.broker.stock_unacked import read_unacked, take_in

    asked_at = server_time_ms(store) / 1000
    worker_tasks = set() if everything else _ids_of_worker_tasks()
    unacked: dict[str, list[Unacked]] = {name: [] for name in queues}
    for entry in read_unacked(store, queues):
        unacked.setdefault(entry.queue, []).append(entry)
    for name in queues:
        if not unacked[name]:
            require_queue(store, name)
    rows = []
    for queue, entries in sorted(unacked.items()):
        ready = read_depth(store, queue).ready
        # A message that a worker fetched after the request is in no reply, so it counts as the worker's.
        abandoned = [
            entry
            for entry in entries
            if everything or (entry.message.id not in worker_tasks and entry.since < asked_at)
        ]
        rows.append(
            {
                "queue": queue,
                "ready": ready,
                "taken_in": take_in(store, abandoned),
                "with_eta": sum(entry.message.headers.get("eta") is not None for entry in abandoned),
                "left": len(entries) - len(abandoned),
            }
        )
    return rows


def _ids_of_worker_tasks() -> set[str]:
    """Return the ids of the tasks that workers say they have: kept for their ETA, waiting, or running.

    The three requests are sent in the order of a task's life, so that a task that moves on meanwhile is in a
    reply. The first waits `REPLY_SECONDS` for all workers. The others end as soon as the workers that replied
    to the first have replied. Raises `BadInput` if one does not reply again, or cannot list its tasks.
    """
    from millpond.tasks.app import celery_app
    from millpond.tasks.process.configured_broker import find_broker, require_broker_url
    from millpond.tasks.settings import settings

    configured, _origin = find_broker(settings())
    app = celery_app(configured.model_copy(update={"broker_url": require_broker_url(configured)}))
    with _translate_kombu_errors("asking the workers which tasks they have"):
        replies = [app.control.inspect(timeout=REPLY_SECONDS).scheduled() or {}]
        if workers := list(replies[0]):
            inspect = app.control.inspect(workers, timeout=REPLY_SECONDS, limit=len(workers))
            replies += [inspect.reserved() or {}, inspect.active() or {}]
    for worker in workers:
        unlisted = [tasks for reply in replies if not isinstance(tasks := reply.get(worker), list)]
        if unlisted:
            why = "no reply" if unlisted[0] is None else str(unlisted[0])
            raise BadInput(
                f"worker {worker} is there, but did not list all its tasks ({why:.200}), and no message was "
                "taken in: ask again, or stop it first"
            )
    return {
        task.get("request", task)["id"] for reply in replies for tasks in reply.values() for task in tasks
    }


@contextmanager
def _translate_kombu_errors(action: str) -> Iterator[None]:
    """Raise `BrokerError` for an error of the broker that kombu has wrapped, as for a missing right."""
    from kombu.exceptions import OperationalError

    from millpond.broker.connection import translate_errors

    with translate_errors(action):
        try:
            yield
        except OperationalError as error:
            raise error.__cause__ or BrokerError(f"{action}: {error}") from None


def _make_delayed_ready(store: "Store", queues: "Iterable[str]") -> list[dict[str, Any]]:
    """Move the delayed messages of these queues to the ready lists, from which stock workers fetch.

    Without names, those of all queues. Return a row for each queue. Raises `UnknownQueue`.
    """
    from millpond.broker.inspect import depth
    from millpond.broker.stock_unacked import hand_back

    for name in queues:
        require_queue(store, name)
    rows = []
    for queue in queues or depth.read_declared_queues(store):
        moved, counts = hand_back(store, queue), depth.read_depth(store, queue)
        rows.append(
            {
                "queue": queue,
                "handed_back": moved,
                "ready": counts.ready,
                "in_flight": counts.in_flight,
                "dead": counts.dead,
            }
        )
    return rows


def _row_text(row: dict[str, Any]) -> str:
    """Return the line of text for the row of one queue."""
    if "handed_back" in row:
        return (
            f"{row['queue']}: {row['handed_back']} delayed messages handed back, {row['ready']} ready; "
            f"{row['in_flight']} in flight, {row['dead']} dead letters stay with Millpond"
        )
    return (
        f"{row['queue']}: {row['taken_in']} taken in, {row['with_eta']} of them with an ETA; "
        f"{row['left']} left with workers that have them; {row['ready']} were ready"
    )
