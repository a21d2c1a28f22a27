"""Judge a run: compare the ledger with the outcomes of sending and with the broker's records."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.errors import UnknownBatch
from millpond.broker.inspect import dead_letters as inspect_dead_letters
from tests.scenarios.chaos import duplicates
from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.fleet import POOLS
from tests.scenarios.chaos.forgotten import Forgotten
from tests.scenarios.chaos.kinds import QUEUES
from tests.scenarios.chaos.repeats import Repeats, allowed, most, repeats
from tests.scenarios.chaos.runs import Task, early

#: A message that is due within this is run at once; clocks are read by different processes.
EARLY_SECONDS = 0.005


@dataclass
class Verdict:
    """The counts of a run, and a line for each violated promise (`wrong`)."""

    counts: dict[str, int]
    duplicated: duplicates.Duplicates
    faults: Counter[str]
    wrong: list[str] = field(default_factory=list)
    #: For each fault by which the broker lost writes: its kind, the seconds lost, and the tasks lost with
    #: them.
    windows: list[tuple[str, float, int]] = field(default_factory=list)


def judge(
    tasks: dict[str, Task],
    faults: Sequence[Fault],
    letters: set[str],
    waiting: Set[str] = frozenset(),
    *,
    retries_are_sent: bool = False,
) -> Verdict:
    """Judge a run. `letters` are the ids of its dead letters, `waiting` of the messages left at its end.

    Stock Celery has no dead letters, and Millpond must leave no message. `retries_are_sent`: a retry is sent
    as a message of its own, as Celery does, and does not replace the message in the settling step.
    """
    outcomes = Counter(task.outcome for task in tasks.values())
    settled = {id for id, task in tasks.items() if "ok" in task.ended}
    buried = {id for id, task in tasks.items() if "fail" in task.ended} | letters
    taken = {id for id, task in tasks.items() if task.outcome == "taken"}
    unknown = {id for id, task in tasks.items() if task.outcome == "unknown"}
    unsettled = taken - settled - buried
    forgotten = Forgotten(faults)
    missing = sorted(unsettled - waiting)
    missing += sorted(id for id in unknown - settled - buried - waiting if tasks[id].runs)
    lost = [id for id in missing if not forgotten.has(tasks[id])]
    # Where the clock was set, a delay may be shorter or longer than it was sent.
    is_clock_set = any(fault.kind == "set clock" for fault in faults)
    hasty = sorted(id for id, task in tasks.items() if not is_clock_set and early(task, EARLY_SECONDS))
    doubled = duplicates.match(tasks.values(), faults, retries_are_sent=retries_are_sent)
    again = repeats(tasks.values(), faults)
    counts = {
        "sent": outcomes["taken"],
        "settled": len(settled),
        "dead": len(buried - settled),
        "waiting": len(unsettled & waiting),
        "lost": len(lost),
        "forgotten": len(missing) - len(lost),
        "early": len(hasty),
        "duplicated": doubled.count,
        "unexplained": len(doubled.unexplained),
        "unknown": len(unknown),
        "unknown, taken": len(unknown & (settled | buried)),
        "refused": outcomes["refused"],
        **_dearest(again),
    }
    verdict = Verdict(counts, doubled, Counter(fault.kind for fault in faults))
    verdict.wrong += [f"lost: {tasks[id]}" for id in lost]
    verdict.windows = forgotten.windows(tasks[id] for id in missing)
    verdict.wrong += [f"early: {tasks[id]}" for id in hasty]
    verdict.wrong += [f"unexplained: {line}" for line in doubled.unexplained]
    verdict.wrong += [f"too dear: {each}" for each in again if each.killed and each.runs > each.allowed]
    return verdict


def _dearest(again: Sequence[Repeats]) -> dict[str, int]:
    """Return the cost of the costliest kill and freeze of a process of each pool, for the table of counts."""
    kills = {f"one kill, {pool} (≤ {allowed(pool)})": most(again, pool, killed=True) for pool in POOLS}
    freezes = {f"one freeze, {pool}": most(again, pool, killed=False) for pool in POOLS}
    return {f"finished again: {name}": runs for name, runs in {**kills, **freezes}.items()}


def dead_letters(store: Store) -> set[str]:
    """Return the ids of the tasks that are dead letters."""
    return {
        letter.task_id for queue in QUEUES for letter in inspect_dead_letters.read_dead_letters(store, queue)
    }


def wrong_letters(tasks: dict[str, Task], letters: set[str], forgotten: Forgotten) -> list[str]:
    """Return a line for each task that failed, is no dead letter, and was not lost by the broker."""
    failed = {id for id, task in tasks.items() if "fail" in task.ended and not forgotten.has(task)}
    return [f"failed and no dead letter: {tasks[id]}" for id in sorted(failed - letters)]


def wrong_batches(
    store: Store, ids: Sequence[str], tasks: dict[str, Task], forgotten: Forgotten
) -> list[str]:
    """Return a line for each batch whose counts or results differ from the ledger."""
    members: dict[str, set[str]] = {id: set() for id in ids}
    for task in tasks.values():
        if task.batch in members and task.outcome in ("taken", "unknown"):
            members[task.batch].add(task.id)
    kept = [id for id in ids if not forgotten.has_batch(store, id, [tasks[each] for each in members[id]])]
    found = ((id, _faults_of(store, id, members[id], tasks, forgotten)) for id in kept)
    return [f"batch {id}: {fault}" for id, faults in found for fault in faults]


def _faults_of(
    store: Store, batch: str, members: set[str], tasks: dict[str, Task], forgotten: Forgotten
) -> list[str]:
    try:
        summary = record.read_summary(store, batch)
    except UnknownBatch:
        return ["the broker does not know it"]
    results = list(record.read_results(store, batch, wait_ms=0, limit=10_000))
    ids = [result.id for result in results]
    faults = []
    if not summary.complete:
        faults.append(f"not complete: {summary}")
    if summary.settled != summary.sent or len(results) != summary.sent:
        faults.append(f"{summary.sent} sent, {summary.settled} settled, {len(results)} results")
    if len(ids) != len(set(ids)):
        faults.append("a task has two results")
    taken = {id for id in members if tasks[id].outcome == "taken" and not forgotten.has(tasks[id])}
    if not taken <= set(ids) <= members:
        faults.append(f"results of {set(ids) ^ taken} are missing or too many")
    for result in results:
        expected = {"succeeded": "ok", "failed": "fail"}.get(result.state)
        if result.id in tasks and expected not in tasks[result.id].ended:
            faults.append(f"{result.id} {result.state}, but the ledger says {tasks[result.id].ended}")
    return faults
