"""Count the finished runs that were repeated, by the fault that caused it and the process that it hit.

A process that is killed or frozen cannot settle the tasks that it has finished, and these run again
elsewhere. Each such run is counted once, for the one fault that prevented its settlement.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.fleet import POOLS
from tests.scenarios.chaos.runs import Run, Task

#: A run that starts within this time after a freeze has ended was fetched before the freeze.
STALE_SECONDS = 2.0

#: A kill may cost a process one finished run for each slot, and this many more (`MAX_UNSETTLED`).
UNSETTLED = 16


@dataclass(frozen=True)
class Repeats:
    """The number of finished runs (`runs`) that one fault cost one worker process (`owner`) of a pool."""

    kind: str
    begins: float
    owner: int
    pool: str
    runs: int

    @property
    def killed(self) -> bool:
        """True if the process or a child of it was killed, False if it was frozen."""
        return self.kind.startswith("kill")

    @property
    def allowed(self) -> int:
        """The most finished runs that a kill may cost a process of this pool."""
        return allowed(self.pool)


def allowed(pool: str) -> int:
    """Return the most finished runs that one kill may cost one process of the pool."""
    return POOLS[pool].concurrency + UNSETTLED


def repeats(tasks: Iterable[Task], faults: Sequence[Fault]) -> list[Repeats]:
    """Return the cost of each fault to each process, the highest first, without faults that cost nothing."""
    counted: Counter[tuple[int, int, str]] = Counter()
    for task in tasks:
        for runs in task.attempts().values():
            for run, again in pairwise(runs):
                cause = _cause(run, again, faults)
                if cause is not None:
                    counted[cause, run.owner, _pool_of(run)] += 1
    return [
        Repeats(faults[cause].kind, faults[cause].begins, owner, pool, runs)
        for (cause, owner, pool), runs in counted.most_common()
    ]


def most(found: Iterable[Repeats], pool: str, *, killed: bool) -> int:
    """Return the most that any one kill, or any one freeze, cost any one process of the pool."""
    return max((each.runs for each in found if each.pool == pool and each.killed == killed), default=0)


def _cause(run: Run, again: Run, faults: Sequence[Fault]) -> int | None:
    """Return the index of the fault that prevented the settlement of a finished run; in doubt, of a kill.

    None if the run did not end, or no fault hit its process.
    """
    if run.ended is None:
        return None
    hits = [
        (each.begins, number)
        for number, each in enumerate(faults)
        if {run.pid, run.owner} & set(each.pids) and each.begins <= again.started
    ]
    killed = [n for _, n in sorted(hits) if faults[n].kind.startswith("kill") and run.ended <= faults[n].ends]
    frozen = [n for _, n in sorted(hits) if faults[n].kind.startswith("freeze")]
    gone_at = faults[killed[0]].begins if killed else float("inf")
    held = [n for n in frozen if run.started <= faults[n].ends <= gone_at]
    stale = [n for n in frozen if run.started <= faults[n].ends + STALE_SECONDS]
    return next(iter(held or killed or stale), None)


def _pool_of(run: Run) -> str:
    # A thread runs tasks in the worker's main process, a prefork child in its own.
    executor = "threads" if run.pid == run.owner else "prefork"
    return next(name for name, pool in POOLS.items() if pool.executor == executor)
