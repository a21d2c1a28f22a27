"""Match every run too many to the fault that explains it.

A run is explained when a fault hit the process of that run, or of the one before it, while it held the
message: from `HELD_SECONDS` before the run began (it was fetched ahead) to `HELD_SECONDS` after it ended (its
settlement was under way). A fault without pids hit every process that spoke to the broker.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.runs import Run, Task

HELD_SECONDS = 2.0

#: A worker that is terminated finishes its running tasks and releases the others: that explains no duplicate.
HARMLESS = ("terminate worker",)


@dataclass
class Duplicates:
    """Count runs too many by the kind of fault that explains them; list those that none explains."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Count all runs too many."""
        return self.explained.total() + len(self.unexplained)


def match(tasks: Iterable[Task], faults: Sequence[Fault], *, retries_are_sent: bool = False) -> Duplicates:
    """Match the surplus runs of all tasks with faults.

    Where `retries_are_sent`, a fault that hits a run that ends in a retry may cause two messages of the
    retry.
    """
    found = Duplicates()
    for task in tasks:
        attempts = task.attempts()
        for attempt, runs in attempts.items():
            senders = attempts.get(attempt - 1, []) if retries_are_sent else []
            for before, again in pairwise(runs):
                fault = _explanation((before, again, *senders), faults)
                if fault is None:
                    found.unexplained.append(f"{task.id}/{attempt}: {before} then {again}")
                else:
                    found.explained[fault.kind] += 1
    return found


def _explanation(runs: Sequence[Run], faults: Sequence[Fault]) -> Fault | None:
    """Return the fault that hit one of the runs: one of its own process, or else one of all."""
    hits = [(fault, run) for run in runs for fault in faults if _hit(run, fault)]
    own = [fault for fault, run in hits if {run.pid, run.owner} & set(fault.pids)]
    return next(iter(own or [fault for fault, _ in hits if not fault.pids]), None)


def _hit(run: Run, fault: Fault) -> bool:
    begins = run.started - HELD_SECONDS
    ends = math.inf if run.ended is None else run.ended + HELD_SECONDS
    return fault.kind not in HARMLESS and fault.begins <= ends and fault.ends >= begins
