"""`millpond status`: the pools and queues, with slots, depths and ages."""

from typing import Annotated

import typer

from millpond.monitor.cli.store import open_store

app = typer.Typer()


@app.command(epilog="Example: millpond status --json")
def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a line: pools, then queues.")
    ] = False,
) -> None:
    """Show the pools and the queues: slots, ready and running tasks, the age of the oldest message.

    Figures of pools are of the last minute (times: 95th percentiles), rates of queues of ten seconds.
    """
    import json

    from millpond.monitor.snapshot import read_snapshot
    from millpond.tasks.settings import settings

    with open_store() as store:
        snapshot = read_snapshot(store, settings().table)
        if as_json:
            from millpond.monitor.diagnosis import diagnose_all
            from millpond.monitor.json_views import pool_json, queue_json

            pools = map(pool_json, snapshot.pools, diagnose_all(store, snapshot))
            for line in [*pools, *map(queue_json, snapshot.queues)]:
                print(json.dumps(line))
            return

    from millpond.monitor.tables import make_pools_table, make_queues_table, show_table, table_console

    console = table_console()
    show_table(console, make_pools_table(snapshot.pools, console.width))
    console.print()
    show_table(console, make_queues_table(snapshot.queues, console.width))
