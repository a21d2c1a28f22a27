"""Checks of the fleet: the processes of the pools, and a worker for each kind of the queues."""

from collections.abc import Iterable, Iterator, Mapping

from millpond.broker.connection import Store
from millpond.broker.inspect.announced_kinds import announced_kinds
from millpond.monitor.doctor.finding import Finding, fail, ok, warn
from millpond.monitor.snapshot import PoolView, Snapshot, read_snapshot
from millpond.tasks import extras
from millpond.tasks.contract import Contract
from millpond.tasks.pools import Table


def examine_fleet(store: Store, table: Table, kinds: Mapping[str, type[Contract]]) -> Iterator[Finding]:
    """Yield the findings on workers and on the kinds of each queue. Raises `BrokerAway`."""
    snapshot = read_snapshot(store, table)
    for pool in snapshot.pools:
        yield _check_pool(pool)
    for queue in sorted(table.queues):
        yield from _check_queue(
            store, snapshot, queue, [name for name, each in kinds.items() if each.queue == queue]
        )
    for kind, contract in sorted(kinds.items()):
        if contract.queue not in table.queues:
            yield fail(
                "kinds",
                f"{kind} goes to the queue {contract.queue!r}, which has no table",
                f"add [queues.{contract.queue}] to millpond.toml, and the queue to a pool",
            )


def _check_pool(view: PoolView) -> Finding:
    """Return whether the processes of a pool run."""
    wanted = view.pool.processes if view.pool else len(view.running)
    line = f"{view.name}: {len(view.running)} of {wanted} processes, {view.ready:,} tasks ready"
    start = f"start it: millpond worker {view.name}"
    if view.drained_at_ms is not None:
        return warn("workers", f"{line}, drained", f"resume it: millpond resume {view.name}")
    if not view.running:
        return fail("workers", line, start) if view.ready else warn("workers", line, start)
    if view.processes_missing:
        return warn("workers", line, f"read the log of millpond worker {view.name}")
    return ok("workers", line)


def _check_queue(store: Store, snapshot: Snapshot, queue: str, kinds: Iterable[str]) -> Iterator[Finding]:
    """Yield whether a queue has a pool, is paused, and has a worker for each of its kinds."""
    view = next(each for each in snapshot.queues if each.name == queue)
    if not view.pools:
        yield warn(
            "queues", f"no pool serves {queue}", f'add "{queue}" to the queues of a pool in millpond.toml'
        )
    if view.limits.paused:
        yield warn("queues", f"{queue} is paused", f"resume it: millpond queue resume {queue}")
    announced = announced_kinds(store, queue, now_ms=snapshot.now_ms)
    if not announced:
        return
    all_kinds = frozenset[str]().union(*announced.values())
    cannot = sorted(set(kinds) - all_kinds)
    if can := sorted(set(kinds) & all_kinds):
        yield ok("kinds", f"{queue}: its workers run {', '.join(can)}")
    if cannot and all_kinds:
        yield fail(
            "kinds", f"{queue}: none of its processes has {', '.join(cannot)}", _kinds_remedy(queue, cannot)
        )


def _kinds_remedy(queue: str, kinds: list[str]) -> str:
    """Return how the workers of a queue get its kinds."""
    needed = extras.extras_of_queues([queue])
    if needed and all(kind.startswith(f"{queue}.") for kind in kinds):
        return f"where its workers run: {extras.install_command(needed)}"
    return "start a worker with MILLPOND_KINDS=MODULE, the module that declares it"
