"""Lay out pools and queues as tables of a terminal, for `status` and `top`."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from millpond.monitor.formatting import plain
from millpond.monitor.snapshot import PoolView, QueueView
from millpond.monitor.text_rows import POOL_COLUMNS, QUEUE_COLUMNS, pool_row, queue_row

#: What the tables need at least; a narrower terminal breaks their lines, which is better than their words.
WIDTH = 100


def pools_table(pools: Iterable[PoolView]) -> Table:
    """Return a table of the pools; what is short of processes stands out."""
    rows = [(pool_row(view), "red" if view.processes_missing else "") for view in pools]
    return _table("Pools", POOL_COLUMNS, rows)


def queues_table(queues: Iterable[QueueView]) -> Table:
    """Return a table of the queues; what is full, paused or served by nobody stands out."""
    return _table("Queues", QUEUE_COLUMNS, [(queue_row(view), _style(view)) for view in queues])


def _style(view: QueueView) -> str:
    if view.limits.bound and view.depth.ready >= view.limits.bound:
        return "red"
    return "yellow" if view.limits.paused or (view.depth.ready and not view.is_served) else ""


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # Where there is no room for all, names are folded: figures of which half is left are none.
        folds = number == 0 or column == "queues"
        left = folds or column == "state"
        table.add_column(column, justify="left" if left else "right", no_wrap=not folds, overflow="fold")
    for row, style in rows:
        table.add_row(*(Text(plain(cell)) for cell in row), style=style)
    return table
