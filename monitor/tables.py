"""Lay out pools and queues as tables of a terminal, for `status` and `top`.

If a table is wider than the terminal, its columns are split into several tables, one below the other, each
with the column of names. No value is cut or broken.
"""

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, OverflowMethod
from rich.table import Table
from rich.text import Text

from millpond.broker.message_names import replace_unprintable
from millpond.monitor.formatting import format_count, format_duration, format_rate, format_share
from millpond.monitor.snapshot import PoolView, QueueView

POOL_COLUMNS = ("pool", "processes", "busy", "rate", "use", "wait", "service", "ready", "in flight", "queues")
QUEUE_COLUMNS = ("queue", "ready", "oldest", "in", "out", "in flight", "delayed", "dead", "state")

#: The spaces between two columns.
_GAP = 2

#: The columns of words, which are aligned at the left; figures are aligned at the right.
_TEXT_COLUMNS = {"pool", "queue", "queues", "state"}

#: The cells of a row, and its style for rich.
StyledRow = tuple[tuple[str, ...], str]


def table_console() -> Console:
    """Return the console on which tables are shown. In a pipe or a file it is as wide as the tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000
    return console


def show_table(console: Console, table: Group) -> None:
    """Print a table. In a pipe or a file its lines do not end with blanks."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def make_pools_table(pools: Iterable[PoolView], width: int) -> Group:
    """Return a table of the pools. A pool that is short of processes is coloured."""
    return _make_table(
        POOL_COLUMNS, [(pool_row(view), "red" if view.processes_missing else "") for view in pools], width
    )


def make_queues_table(queues: Iterable[QueueView], width: int) -> Group:
    """Return a table of the queues. A queue that is full, paused or served by no worker is coloured."""
    return _make_table(QUEUE_COLUMNS, [(queue_row(view), _queue_style(view)) for view in queues], width)


def pool_row(view: PoolView) -> tuple[str, ...]:
    """Return the cells of a pool. `wait` and `service` are 95th percentiles of the last minute."""
    expected = view.pool.processes if view.pool else len(view.running)
    return (
        view.name,
        f"{len(view.running)} of {expected}" + (", drained" if view.drained_at_ms else ""),
        f"{view.busy} of {view.slots}",
        format_rate(view.rate),
        format_share(view.utilisation),
        format_duration(view.wait.quantile(0.95)),
        format_duration(view.service.quantile(0.95)),
        format_count(view.ready),
        format_count(view.in_flight),
        " ".join(queue.name for queue in view.queues),
    )


def queue_row(view: QueueView) -> tuple[str, ...]:
    """Return the cells of a queue."""
    depth, limits = view.depth, view.limits
    return (
        view.name,
        f"{depth.ready:,} of {limits.bound:,}" if limits.bound else format_count(depth.ready),
        format_duration(depth.oldest_seconds),
        format_rate(view.in_rate),
        format_rate(view.out_rate),
        format_count(depth.in_flight),
        format_count(depth.delayed),
        format_count(depth.dead),
        f"served by {depth.consumers}" if view.state == "served" else view.state,
    )


def _queue_style(view: QueueView) -> str:
    """Return the style of a queue's row: red if full, yellow if paused or without a worker that it needs."""
    if view.limits.bound and view.depth.ready >= view.limits.bound:
        return "red"
    return "yellow" if view.limits.paused or (view.depth.ready and not view.is_served) else ""


def _make_table(columns: tuple[str, ...], rows: Sequence[StyledRow], width: int) -> Group:
    """Return the rows as one table, or as several tables of some columns each if one is wider than `width`.

    If the names alone take more than half of the width, return lines: each name, and its cells below.
    """
    cells = [tuple(replace_unprintable(cell) for cell in row) for row, _style in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    styles = [style for _row, style in rows]
    if widths[0] > width // 2 and _total_width(widths) > width:
        return Group(*_stacked_lines(columns, cells, styles, width))
    return Group(
        *(
            _make_block(
                columns, cells, styles, numbers, fits=_total_width([widths[n] for n in numbers]) <= width
            )
            for numbers in _split_columns(widths, width)
        )
    )


def _total_width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _split_columns(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield the numbers of the columns of each block. The first column is in all blocks."""
    block, used = [0], widths[0]
    for number in range(1, len(widths)):
        if len(block) > 1 and used + _GAP + widths[number] > width:
            yield block
            block, used = [0], widths[0]
        block.append(number)
        used += _GAP + widths[number]
    yield block


def _make_block(
    columns: tuple[str, ...],
    cells: Sequence[tuple[str, ...]],
    styles: Sequence[str],
    numbers: Sequence[int],
    *,
    fits: bool,
) -> Table:
    """Return a table of the columns with these numbers. `fits`: it is not wider than the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    # With "fold" rich would cut a table that is too wide. "ignore" would not align the cells.
    overflow: OverflowMethod = "fold" if fits else "ignore"
    for number in numbers:
        name = columns[number]
        table.add_column(
            name, justify="left" if name in _TEXT_COLUMNS else "right", no_wrap=True, overflow=overflow
        )
    for row, style in zip(cells, styles, strict=True):
        table.add_row(*(Text(row[number]) for number in numbers), style=style)
    return table


def _stacked_lines(
    columns: tuple[str, ...], cells: Sequence[tuple[str, ...]], styles: Sequence[str], width: int
) -> Iterator[Text]:
    """Yield the lines of rows whose names are too long for a table: the name, then its cells below."""
    for row, style in zip(cells, styles, strict=True):
        yield Text(f"{columns[0]} {row[0]}", style=style, no_wrap=True, overflow="ignore")
        line = ""
        for name, cell in zip(columns[1:], row[1:], strict=True):
            field = f"  {name} {cell}"
            if line and cell_len(line) + cell_len(field) > width:
                yield Text(line, style=style, no_wrap=True, overflow="ignore")
                line = ""
            line += field
        yield Text(line, style=style, no_wrap=True, overflow="ignore")
