"""Offer `millpond status`: pools, queues, slots, what waits and for how long."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond status --json")
def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a line: pools, then queues.")
    ] = False,
) -> None:
    """Show the pools and the queues: slots, what waits, what runs, and how old the oldest message is.

    Figures of pools are of the last minute (times: 95th percentiles), rates of queues of ten seconds.
    """
    import json

    from millpond.monitor.cli.opening import opened
    from millpond.monitor.snapshot import read
    from millpond.tasks.settings import settings

    with opened() as store:
        seen = read(store, settings().table)
    if as_json:
        from millpond.monitor.json_views import pool_object, queue_object

        for line in [*map(pool_object, seen.pools), *map(queue_object, seen.queues)]:
            print(json.dumps(line))
        return

    from rich.console import Console

    from millpond.monitor.tables import WIDTH, pools_table, queues_table

    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    for table in (pools_table(seen.pools), queues_table(seen.queues)):
        console.print(table)
        console.print()
