"""`millpond top`: watch the pools and queues in the terminal until `q` is pressed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from millpond.monitor.cli.store import open_store

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
    from millpond.monitor.tables import table_console
    from millpond.tasks.durations import parse_seconds
    from millpond.tasks.settings import settings

    pause, console, pools_table = max(LEAST_SECONDS, parse_seconds(every)), table_console(), settings().table
    with open_store() as store:
        if once or not console.is_terminal:
            console.print(make_screen(store, pools_table, console.width))
        else:
            _refresh_until_q(lambda: _screen_or_error(store, pools_table, console.width), console, pause)


def _refresh_until_q(render: Callable[[], Any], console: Any, seconds: float) -> None:
    """Show the screen that `render` returns, and replace it every `seconds`, until `q` is pressed.

    Raises `KeyboardInterrupt` at Ctrl-C.
    """
    import signal

    from rich.live import Live

    # Ctrl-C must be an exception, so that the terminal is restored before this process ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with _key_reader() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render(), refresh=True)
            if read_key(seconds) in ("q", "Q"):
                return


@contextmanager
def _key_reader() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key and returns it, or "" if none was pressed.

    Without a terminal it only waits. The terminal's mode is restored at the end of the block.
    """
    import os
    import select
    import sys
    import termios
    import time
    import tty

    def wait_without_key(seconds: float) -> str:
        time.sleep(seconds)
        return ""

    if not sys.stdin.isatty():
        yield wait_without_key
        return
    keyboard = sys.stdin.fileno()
    mode = termios.tcgetattr(keyboard)

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        return os.read(keyboard, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(keyboard)
        yield read_key
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, mode)


def make_screen(store: Any, pools_table: Any, width: int) -> Any:
    """Return the screen for rich to print: the time, the pools, the queues, the latest changes."""
    from rich.console import Group
    from rich.text import Text

    from millpond.broker import audit
    from millpond.broker.message_names import replace_unprintable
    from millpond.monitor.formatting import format_time
    from millpond.monitor.snapshot import read_snapshot
    from millpond.monitor.tables import make_pools_table, make_queues_table
    from millpond.tasks.process.terminal import break_line

    snapshot = read_snapshot(store, pools_table)
    lines = (
        f"{format_time(change.at_ms)}  {change.user}: {change.action}"
        for change in audit.read_changes(store, limit=5)
    )
    changes = [Text(break_line(replace_unprintable(line), width), style="dim") for line in lines]
    head = Text(f"millpond top  {format_time(snapshot.now_ms)}  q ends", style="bold")
    return Group(
        head,
        "",
        make_pools_table(snapshot.pools, width),
        "",
        make_queues_table(snapshot.queues, width),
        "",
        *changes,
    )


def _screen_or_error(store: Any, pools_table: Any, width: int) -> Any:
    """Return the screen, or the error's text in its place if the broker cannot be read."""
    from rich.text import Text

    from millpond.broker.errors import BrokerError

    try:
        return make_screen(store, pools_table, width)
    except BrokerError as error:
        return Text(f"{error} Looking again …", style="red")
