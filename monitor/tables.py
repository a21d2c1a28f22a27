"""Tables of pools and queues for a terminal (`status`, `top`)."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from millpond.monitor.formatting import count, duration, plain, rate, share
from millpond.monitor.snapshot import PoolView, QueueView

POOL_COLUMNS = ("pool", "processes", "busy", "rate", "use", "wait", "service", "ready", "in flight", "queues")
QUEUE_COLUMNS = ("queue", "ready", "oldest", "in", "out", "in flight", "delayed", "dead", "state")

#: The least width of the tables; a narrower terminal breaks their lines, not their words.
WIDTH = 100


def pools_table(pools: Iterable[PoolView]) -> Table:
    """Return a table of the pools; a pool with missing processes is red."""
    rows = [(pool_row(view), "red" if view.processes_missing else "") for view in pools]
    return _table("Pools", POOL_COLUMNS, rows)


def queues_table(queues: Iterable[QueueView]) -> Table:
    """Return a table of the queues; a full one is red, a paused one or one without a worker yellow."""
    return _table("Queues", QUEUE_COLUMNS, [(queue_row(view), _style(view)) for view in queues])


def pool_row(view: PoolView) -> tuple[str, ...]:
    """Return the cells of a pool; `wait` and `service` are 95th percentiles of the last minute."""
    wanted = view.pool.processes if view.pool else len(view.running)
    return (
        view.name,
        f"{len(view.running)} of {wanted}" + (", drained" if view.drained_at_ms else ""),
        f"{view.busy} of {view.slots}",
        rate(view.rate),
        share(view.utilisation),
        duration(view.wait.quantile(0.95)),
        duration(view.service.quantile(0.95)),
        count(view.ready),
        count(view.in_flight),
        " ".join(queue.name for queue in view.queues),
    )


def queue_row(view: QueueView) -> tuple[str, ...]:
    """Return the cells of a queue."""
    depth, limits = view.depth, view.limits
    return (
        view.name,
        f"{depth.ready:,} of {limits.bound:,}" if limits.bound else count(depth.ready),
        duration(depth.oldest_seconds),
        rate(view.in_rate),
        rate(view.out_rate),
        count(depth.in_flight),
        count(depth.delayed),
        count(depth.dead),
        f"served by {depth.consumers}" if view.state == "served" else view.state,
    )


def _style(view: QueueView) -> str:
    if view.limits.bound and view.depth.ready >= view.limits.bound:
        return "red"
    return "yellow" if view.limits.paused or (view.depth.ready and not view.is_served) else ""


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # Only names are folded in a narrow terminal: half a number would be wrong.
        folds = number == 0 or column == "queues"
        left = folds or column == "state"
        table.add_column(column, justify="left" if left else "right", no_wrap=not folds, overflow="fold")
    for row, style in rows:
        table.add_row(*(Text(plain(cell)) for cell in row), style=style)
    return table
