"""Read the runs of tasks from the ledger, and find the lost tasks and the repeats that no fault explains."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from millpond.broker.connection import connect

#: A message may be in flight for this long before its run begins and after it ends.
HELD_SECONDS = 2.0


@dataclass
class Run:
    """One run of a task: its host, its start and its end (Unix time); None: it never ended."""

    id: str
    host: str
    started: float
    ended: float | None = None


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, its start and end, and the hosts that it hit. No hosts: it hit all."""

    kind: str
    begins: float
    ends: float
    hosts: Collection[str] = ()

    def hit(self, run: Run) -> bool:
        """True if the fault fell into the time in which the run's host had the message in flight."""
        ends = inf if run.ended is None else run.ended + HELD_SECONDS
        near = self.begins <= ends and self.ends >= run.started - HELD_SECONDS
        return near and (not self.hosts or run.host in self.hosts)


def runs(url: str, ids: Collection[str]) -> dict[str, list[Run]]:
    """Return the runs of these tasks by id, in the order of their starts."""
    from tests.kinds.host_kinds import EVENTS  # which declares a kind

    store, found = connect(url, timeout_seconds=30), defaultdict(list)
    for event in map(json.loads, store.client.lrange(EVENTS, 0, -1)):
        if event["id"] not in ids:
            continue
        if event["event"] == "started":
            found[event["id"]].append(Run(event["id"], event["host"], event["at"]))
        else:
            open_ = [run for run in found[event["id"]] if run.host == event["host"] and run.ended is None]
            open_[0].ended = event["at"]
    store.close()
    return found


def lost(ids: Iterable[str], found: dict[str, list[Run]]) -> list[str]:
    """Return the tasks of which no run ended."""
    return [id for id in ids if not any(run.ended for run in found.get(id, ()))]


def repeats(found: dict[str, list[Run]], faults: Sequence[Fault]) -> tuple[int, list[str]]:
    """Return the number of surplus runs, and a text for each that no fault explains."""
    pairs = [pair for many in found.values() for pair in pairwise(many)]
    unexplained = [pair for pair in pairs if not any(fault.hit(run) for fault in faults for run in pair)]
    return len(pairs), [f"{before} then {again}" for before, again in unexplained]


def most_at_once(found: dict[str, list[Run]]) -> int:
    """Return the most runs that were going on at the same time."""
    steps = [(run.started, 1) for many in found.values() for run in many]
    steps += [(run.ended, -1) for many in found.values() for run in many if run.ended is not None]
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def most_started(found: dict[str, list[Run]], *, within_seconds: float) -> int:
    """Return the most runs that started within any period of `within_seconds`."""
    starts = sorted(run.started for many in found.values() for run in many)
    first = most = 0
    for last, at in enumerate(starts):
        while at - starts[first] >= within_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
