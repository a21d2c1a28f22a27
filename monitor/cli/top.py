"""`millpond top`: watch the pools and queues in the terminal until Ctrl-C."""

from typing import Annotated, Any

import typer

app = typer.Typer()

#: The shortest pause between two screens.
LEAST_SECONDS = 0.2


@app.command(epilog="Example: millpond top --every 5")
def top(
    every: Annotated[str, typer.Option(metavar="TIME", help="Refresh after this time, as in 500ms.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
) -> None:
    """Watch the pools and the queues: the figures of Flower's pages, in the terminal.

    Figures of pools are of the last minute (times: 95th percentiles), rates of queues of ten seconds.
    Into a pipe or a file it prints once.
    """
    import time
    from contextlib import suppress

    from rich.console import Console
    from rich.live import Live

    from millpond.monitor.cli.store import open_store
    from millpond.tasks.durations import seconds
    from millpond.tasks.settings import settings

    pause = max(LEAST_SECONDS, seconds(every))
    console = Console(highlight=False)
    table = settings().table
    with open_store() as store:
        if once or not console.is_terminal:
            console.print(screen(store, table))
            return
        with suppress(KeyboardInterrupt), Live(console=console, screen=console.is_terminal) as live:
            while True:
                live.update(_screen_or_error(store, table), refresh=True)
                time.sleep(pause)


def screen(store: Any, table: Any) -> Any:
    """Return one screen: the time, the pools, the queues, the latest changes."""
    from rich.console import Group
    from rich.text import Text

    from millpond.broker import audit
    from millpond.monitor.formatting import moment, plain
    from millpond.monitor.snapshot import read
    from millpond.monitor.tables import pools_table, queues_table

    seen = read(store, table)
    changes = [
        Text(plain(f"{moment(change.at_ms)}  {change.who}: {change.what}"), style="dim")
        for change in audit.recent(store, limit=5)
    ]
    head = Text(f"millpond top  {moment(seen.now_ms)}  Ctrl-C ends", style="bold")
    return Group(head, "", pools_table(seen.pools), "", queues_table(seen.queues), "", *changes)


def _screen_or_error(store: Any, table: Any) -> Any:
    from rich.text import Text

    from millpond.broker.errors import BrokerError

    try:
        return screen(store, table)
    except BrokerError as error:
        return Text(f"{error} Looking again …", style="red")
