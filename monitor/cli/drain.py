"""`millpond drain` and `millpond resume`: stop a pool on all hosts, and resume it."""

from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.monitor.cli.output import print_result
from millpond.monitor.cli.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millpond.broker.connection import Store

app = typer.Typer()
resuming = typer.Typer()

PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool, as `millpond status` lists it.")]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON object a line; the last one is the result.")
]

#: The seconds between two reads of the pool's processes.
READ_SECONDS = 0.2


@app.command(epilog="Example: millpond drain email --json")
def drain(
    pool: PoolName,
    wait: Annotated[bool, typer.Option(help="Report until nothing of the pool runs any more.")] = True,
    as_json: Json = False,
) -> None:
    """Drain a pool on all hosts: fetch nothing more, finish the running tasks, release the others.

    Tasks that still run after `drain_seconds` are cut off and released, without counting a delivery. The
    workers stay up, and new ones wait, until `millpond resume POOL`. Exits with 0 once no task runs, and with
    1 if a task still runs after the deadline.
    """
    from millpond.broker import audit
    from millpond.broker.control import drain as control_drain
    from millpond.tasks.pools import STOP_MARGIN_SECONDS
    from millpond.tasks.settings import settings

    queues = settings().table.pool(pool).queues
    with open_store() as store:
        unacknowledged = control_drain.drain_pool(store, pool)
        audit.record_command(store, f"drained pool {pool}")
        seconds = settings().drain_seconds + STOP_MARGIN_SECONDS if wait else 0.0
        processes = _wait_for_drain(store, pool, queues, seconds, as_json)
    running = sum(processes.values())
    result = {"pool": pool, "drained": True, "running": running, "processes": len(processes)}
    print_result(
        {**result, "unacknowledged": list(unacknowledged)},
        _summary_line(pool, running, len(processes)),
        as_json=as_json,
    )
    raise typer.Exit(1 if wait and (running or unacknowledged) else 0)


@resuming.command(epilog="Example: millpond resume email")
def resume(pool: PoolName, as_json: Json = False) -> None:
    """Resume a drained pool."""
    from millpond.broker import audit
    from millpond.broker.control import drain as control_drain
    from millpond.tasks.settings import settings

    settings().table.pool(pool)  # raises `SettingsError` for an unknown pool
    with open_store() as store:
        was_drained = control_drain.resume_pool(store, pool)
        if was_drained:
            audit.record_command(store, f"resumed pool {pool}")
    text = f"{pool}: resumed" if was_drained else f"{pool}: was not drained"
    print_result({"pool": pool, "drained": False, "was_drained": was_drained}, text, as_json=as_json)


def _wait_for_drain(
    store: "Store", pool: str, queues: "Sequence[str]", seconds: float, as_json: bool
) -> dict[str, int]:
    """Wait until no task of the pool runs, `seconds` at most. Print the running tasks when they change.

    Return the messages in flight of the connected processes of the pool at the end.
    """
    from millpond.broker.control import drain as control_drain

    deadline, printed = monotonic() + seconds, None
    while True:
        processes = control_drain.read_process_loads(store, pool, queues)
        busy = {process: count for process, count in processes.items() if count}
        if not busy or monotonic() >= deadline:
            return processes
        if busy != printed:
            printed = busy
            words = ", ".join(f"{count} on {process}" for process, count in busy.items())
            result = {"pool": pool, "running": sum(busy.values()), "on": busy}
            print_result(result, f"{pool}: {words}", as_json=as_json)
        sleep(READ_SECONDS)


def _summary_line(pool: str, running: int, processes: int) -> str:
    """Return the last line of `drain`: whether tasks still run, and the command to type next."""
    if running:
        return f"{pool}: drained, {running} still running. Check again with: millpond drain {pool}"
    waiting = "1 process waits" if processes == 1 else f"{processes} processes wait"
    state = waiting if processes else "none of its processes is connected"
    return f"{pool}: drained, no task runs, {state}. Resume it with: millpond resume {pool}"
