"""Checks of the fleet: the processes of the pools, the limits in force, a worker for each kind."""

from collections.abc import Iterable, Iterator, Mapping

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect.announced_kinds import read_announced_kinds
from millpond.monitor.doctor.finding import Finding, fail, ok, warn
from millpond.monitor.snapshot import PoolView, Snapshot, read_snapshot
from millpond.tasks import extras
from millpond.tasks.contract import Contract
from millpond.tasks.pools import LIMITS_REMEDY, PoolsTable
from millpond.tasks.toml_names import table_header


def examine_fleet(
    store: Store, pools_table: PoolsTable, kinds: Mapping[str, type[Contract]]
) -> Iterator[Finding]:
    """Yield the findings on the processes of the pools, the queues, and their kinds. Raises `BrokerAway`.

    `kinds` are all known contracts by kind: Millpond's own, and those of the modules that the settings name.
    """
    snapshot = read_snapshot(store, pools_table)
    for pool in snapshot.pools:
        yield _check_pool(pool)
    for name in sorted(pools_table.pools):
        for fault in pools_table.limits_not_kept(name):
            yield warn("limits", fault, LIMITS_REMEDY)
    for queue in sorted(pools_table.queues):
        queue_kinds = [kind for kind, contract in kinds.items() if contract.queue == queue]
        yield from _check_queue(store, snapshot, queue, queue_kinds)
        yield from _check_limits(store, pools_table, queue)
    for kind, contract in sorted(kinds.items()):
        if contract.queue not in pools_table.queues:
            yield fail(
                "kinds",
                f"{kind} goes to the queue {contract.queue!r}, which has no table",
                f"add {table_header('queues', contract.queue)} to millpond.toml, and the queue to a pool",
            )


def _check_pool(view: PoolView) -> Finding:
    """Return the finding on a pool: do all of its processes run?"""
    expected = view.pool.processes if view.pool else len(view.running)
    line = f"{view.name}: {len(view.running)} of {expected} processes, {view.ready:,} tasks ready"
    start = f"start it: millpond worker {view.name}"
    if view.drained_at_ms is not None:
        return warn("workers", f"{line}, drained", f"resume it: millpond resume {view.name}")
    if not view.running:
        return fail("workers", line, start) if view.ready else warn("workers", line, start)
    if view.processes_missing:
        return warn("workers", line, f"read the log of millpond worker {view.name}")
    return ok("workers", line)


def _check_queue(store: Store, snapshot: Snapshot, queue: str, kinds: Iterable[str]) -> Iterator[Finding]:
    """Yield the findings on a queue: is it served, is it paused, does a worker have each of its kinds?

    There is no finding on kinds if no worker has announced its kinds.
    """
    view = next(queue_view for queue_view in snapshot.queues if queue_view.name == queue)
    if not view.pools:
        yield warn(
            "queues", f"no pool serves {queue}", f'add "{queue}" to the queues of a pool in millpond.toml'
        )
    if view.limits.paused:
        yield warn("queues", f"{queue} is paused", f"resume it: millpond queue resume {queue}")
    announced = set[str]().union(*read_announced_kinds(store, queue, now_ms=snapshot.now_ms).values())
    if present := sorted(announced.intersection(kinds)):
        yield ok("kinds", f"{queue}: its workers run {', '.join(present)}")
    if announced and (missing := sorted(set(kinds) - announced)):
        fault = f"{queue}: none of its processes has {', '.join(missing)}"
        yield fail("kinds", fault, _missing_kinds_remedy(queue, missing))


def _check_limits(store: Store, pools_table: PoolsTable, queue: str) -> Iterator[Finding]:
    """Yield a finding if limits in force of a queue are those of another table than this one."""
    if different := limits.compare_limits(store, queue, pools_table.queues[queue].broker_limits()):
        yield warn(
            "limits",
            f"{queue}: a worker or client has declared other limits than those here: in force -> here: "
            f"{', '.join(map(str, different))}",
            f"give all workers of this broker one {table_header('queues', queue)} table: that of the worker "
            "that started last holds for all",
        )


def _missing_kinds_remedy(queue: str, kinds: list[str]) -> str:
    """Return the instruction that gives the workers of a queue these kinds."""
    needed = extras.extras_of_queues([queue])
    if needed and all(kind.startswith(f"{queue}.") for kind in kinds):
        return f"where its workers run: {extras.install_command(needed)}"
    return "start a worker with MILLPOND_KINDS=MODULE, the module that declares it"
