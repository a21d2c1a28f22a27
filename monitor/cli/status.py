"""Offer `millpond status`: pools, queues, slots, what waits and for how long."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from monitor.overview import PoolView, QueueView

app = typer.Typer()


@app.command(epilog="Example: millpond status --json")
def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a line: pools, then queues.")
    ] = False,
) -> None:
    """Show the pools and the queues: slots, what waits, what runs, and how old the oldest message is."""
    import json

    from monitor.cli.opening import opened
    from monitor.overview import pool_views, queue_views
    from tasks.settings import settings

    table = settings().table
    with opened() as store:
        queues = {view.depth.queue: view for view in queue_views(store, table)}
    pools = list(pool_views(table, queues))
    if as_json:
        for line in [*map(_pool_object, pools), *map(queue_object, queues.values())]:
            print(json.dumps(line))
        return
    _print_table("Pools", _POOL_COLUMNS, [_pool_row(view) for view in pools])
    _print_table("Queues", _QUEUE_COLUMNS, [queue_row(view) for view in queues.values()])


_POOL_COLUMNS = ("pool", "executor", "processes", "slots", "prefetch", "queues", "holds", "waiting")
_QUEUE_COLUMNS = ("queue", "waiting", "bound", "oldest", "held", "delayed", "dead", "consumers", "state")


def queue_object(view: "QueueView") -> dict[str, Any]:
    """Return a queue as JSON has it."""
    from dataclasses import asdict

    return {**asdict(view.depth), "limits": asdict(view.limits), "pools": list(view.pools), "type": "queue"}


def _pool_object(view: "PoolView") -> dict[str, Any]:
    return {
        "type": "pool",
        "pool": view.name,
        **view.pool.model_dump(mode="json"),
        "slots": view.pool.slots,
        "held": sum(queue.depth.held for queue in view.queues),
        "waiting": sum(queue.depth.ready for queue in view.queues),
    }


def _pool_row(view: "PoolView") -> tuple[str, ...]:
    pool, line = view.pool, _pool_object(view)
    return (
        view.name,
        pool.executor,
        str(pool.processes),
        str(pool.slots),
        str(pool.prefetch),
        " ".join(pool.queues),
        f"{line['held']:,}",
        f"{line['waiting']:,}",
    )


def queue_row(view: "QueueView") -> tuple[str, ...]:
    """Return a queue as a row for a person."""
    depth, limits = view.depth, view.limits
    state = "paused" if limits.paused else "served" if view.is_served else "no worker"
    return (
        depth.queue,
        f"{depth.ready:,}",
        f"{limits.bound:,} {limits.overflow}" if limits.bound else "none",
        "-" if depth.oldest_seconds is None else f"{depth.oldest_seconds:,.1f} s",
        f"{depth.held:,}",
        f"{depth.delayed:,}",
        f"{depth.dead:,}",
        str(depth.consumers),
        state,
    )


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print()
