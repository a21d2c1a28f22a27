"""Find the fault that explains each surplus run of a task.

A fault explains a run if it hit the process of that run, or of the run before it, while the process had the
message in flight: from `HELD_SECONDS` before the run began (it was fetched ahead) to `HELD_SECONDS` after it
ended (its settlement was under way). A fault without pids hit every process that has a connection to the
broker.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.runs import Run, Task

HELD_SECONDS = 2.0

#: A worker that is terminated finishes its running tasks and releases the others, so this explains no
#: duplicate.
HARMLESS = ("terminate worker",)


@dataclass
class Duplicates:
    """The number of surplus runs by the kind of fault that explains them, and the others as lines."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of all surplus runs."""
        return self.explained.total() + len(self.unexplained)


def match(tasks: Iterable[Task], faults: Sequence[Fault], *, retries_are_sent: bool = False) -> Duplicates:
    """Return the surplus runs of all tasks, with the faults that explain them.

    If `retries_are_sent` as messages of their own, a fault that hits a run that ends in a retry may cause two
    messages of the retry.
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
    """Return a fault that hit one of the runs: a fault of its process, or else one of all processes."""
    hits = [(fault, run) for run in runs for fault in faults if _hit(run, fault)]
    own = [fault for fault, run in hits if {run.pid, run.owner} & set(fault.pids)]
    return next(iter(own or [fault for fault, _ in hits if not fault.pids]), None)


def _hit(run: Run, fault: Fault) -> bool:
    """True if a fault happened while the process of a run had the message in flight."""
    begins = run.started - HELD_SECONDS
    ends = math.inf if run.ended is None else run.ended + HELD_SECONDS
    return fault.kind not in HARMLESS and fault.begins <= ends and fault.ends >= begins
