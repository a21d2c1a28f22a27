"""Find the fault that explains each surplus run of a task.

A fault explains a run if it hit the process of that run, or of the run before it, while the process had the
message in flight: from `HELD_SECONDS` before the run began (it was fetched ahead) to `HELD_SECONDS` after it
ended (its settlement was under way). A fault without pids hit every process that has a connection to the
broker.

Celery's `self.retry` sends the retry as a message of its own before the message of its task is settled. If
the worker is killed between the two, that message is redelivered and sends the retry once more. From then on
two messages of the task are under way, and each later attempt runs twice, whatever processes run it.
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

#: The explanation of a surplus run whose retry was sent by a surplus run of the attempt before it.
SENT_AGAIN = "retry sent twice"


@dataclass
class Duplicates:
    """The number of surplus runs by the kind of fault, or `SENT_AGAIN`, and the unexplained ones as lines."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of all surplus runs."""
        return self.explained.total() + len(self.unexplained)


def match(tasks: Iterable[Task], faults: Sequence[Fault], *, retries_are_sent: bool = False) -> Duplicates:
    """Return the surplus runs of all tasks, with the faults that explain them.

    If `retries_are_sent` as messages of their own, a fault that hits a run that ends in a retry may cause two
    messages of the retry, and each surplus run that ends in a retry explains one surplus run of the next
    attempt.
    """
    found = Duplicates()
    for task in tasks:
        attempts = task.attempts()
        for attempt, runs in attempts.items():
            senders = attempts.get(attempt - 1, []) if retries_are_sent else []
            sent_again = 0
            for before, again in pairwise(runs):
                fault = _explanation((before, again, *senders), faults)
                if fault is not None:
                    found.explained[fault.kind] += 1
                elif sent_again + 1 < _retries_sent(senders, again.started):
                    sent_again += 1
                    found.explained[SENT_AGAIN] += 1
                else:
                    found.unexplained.append(f"{task.id}/{attempt}: {before} then {again}")
    return found


def _retries_sent(runs: Sequence[Run], until: float) -> int:
    """Return how many of the runs had ended in a retry by a time: each has sent one message of it."""
    return sum(run.how == "retry" and run.ended is not None and run.ended <= until for run in runs)


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
