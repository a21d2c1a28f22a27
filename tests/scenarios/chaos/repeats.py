"""Count the finished runs that were done again: for each fault, the cost to each process that it hit.

A process that is killed or frozen cannot settle the tasks it has finished, and these run again elsewhere.
Each such run is counted once, under the one fault that kept it from being settled.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.fleet import POOLS
from tests.scenarios.chaos.runs import Run, Task

#: A run that starts so soon after its process was frozen had been fetched before the freeze.
STALE_SECONDS = 2.0

#: A kill may cost a process as many finished runs as it has slots, and these.
UNSETTLED = 16


@dataclass(frozen=True)
class Repeats:
    """The number of finished runs that one fault cost one main process of a worker, with its pool."""

    kind: str
    begins: float
    owner: int
    pool: str
    runs: int

    @property
    def killed(self) -> bool:
        """True if the process, or a child of it, was killed, rather than frozen."""
        return self.kind.startswith("kill")

    @property
    def allowed(self) -> int:
        """Return how many a kill may cost a process of this pool."""
        return allowed(self.pool)


def allowed(pool: str) -> int:
    """Return how many finished runs one kill may cost one process of the pool."""
    return POOLS[pool].concurrency + UNSETTLED


def repeats(tasks: Iterable[Task], faults: Sequence[Fault]) -> list[Repeats]:
    """Return the cost of each fault to each process, the dearest first, without those of no cost."""
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
    """Return which fault kept a finished run from being settled; in doubt, the kill."""
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
