"""`millpond top`: watch the pools and queues in the terminal until `q` is pressed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Watch the pools and the queues: the figures of Flower's pages, in the terminal, until `q` or Ctrl-C.

    Figures of pools are of the last minute (times: 95th percentiles), rates of queues of ten seconds.
    Into a pipe or a file it prints once.
    """
    from millpond.monitor.cli.store import open_store
    from millpond.monitor.tables import table_console
    from millpond.tasks.durations import parse_seconds
    from millpond.tasks.settings import settings

    pause, shown, table = max(LEAST_SECONDS, parse_seconds(every)), table_console(), settings().table
    with open_store() as store:
        if once or not shown.is_terminal:
            shown.print(make_screen(store, table, shown.width))
        else:
            _redraw(lambda: _screen_or_error(store, table, shown.width), shown, pause)


def _redraw(look: Callable[[], Any], shown: Any, seconds: float) -> None:
    """Show the result of `look` until `q` is pressed. Ctrl-C interrupts."""
    import signal

    from rich.live import Live

    # Nothing may end this process from here on that leaves the terminal as it is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with _key_reader() as pressed, Live(console=shown, screen=True, auto_refresh=False) as live:
        while True:
            live.update(look(), refresh=True)
            if pressed(seconds) in ("q", "Q"):
                return


@contextmanager
def _key_reader() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key and returns it. Without a terminal it only waits."""
    import os
    import select
    import sys
    import termios
    import time
    import tty

    def waited(seconds: float) -> str:
        time.sleep(seconds)
        return ""

    if not sys.stdin.isatty():
        yield waited
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        return os.read(keyboard, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(keyboard)
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def make_screen(store: Any, table: Any, width: int) -> Any:
    """Return the screen: the time, the pools, the queues, the latest changes."""
    from rich.console import Group
    from rich.text import Text

    from millpond.broker import audit
    from millpond.monitor.formatting import format_time, printable
    from millpond.monitor.snapshot import read_snapshot
    from millpond.monitor.tables import pools_table, queues_table
    from millpond.tasks.process.terminal import break_line

    snapshot = read_snapshot(store, table)
    changes = [
        Text(
            break_line(printable(f"{format_time(change.at_ms)}  {change.user}: {change.action}"), width),
            style="dim",
        )
        for change in audit.recent_changes(store, limit=5)
    ]
    head = Text(f"millpond top  {format_time(snapshot.now_ms)}  q ends", style="bold")
    return Group(
        head, "", pools_table(snapshot.pools, width), "", queues_table(snapshot.queues, width), "", *changes
    )


def _screen_or_error(store: Any, table: Any, width: int) -> Any:
    """Return the screen, or the broker's error in its place."""
    from rich.text import Text

    from millpond.broker.errors import BrokerError

    try:
        return make_screen(store, table, width)
    except BrokerError as error:
        return Text(f"{error} Looking again …", style="red")
