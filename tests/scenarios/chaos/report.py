"""Print the verdict of a run as a table in Markdown, as RESULTS.md has it."""

import json
from pathlib import Path

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.repeats import repeats
from tests.scenarios.chaos.running import Plan
from tests.scenarios.chaos.runs import tasks_of
from tests.scenarios.chaos.verdict import Verdict

#: The maximum of printed violations. The number of the others is printed.
_SHOWN = 20


def show(plan: Plan, verdict: Verdict, seconds: float) -> None:
    """Print the counts, the faults, the duplicates by fault, and the violations."""
    print(f"\n{plan.transport}, seed {plan.seed}, {plan.tasks} tasks, {seconds:.0f} s\n")
    rows = [(name, str(count)) for name, count in verdict.counts.items()]
    rows += [(f"fault: {kind}", str(count)) for kind, count in sorted(verdict.faults.items())]
    rows += [(f"duplicated by: {kind}", str(n)) for kind, n in sorted(verdict.duplicated.explained.items())]
    width = max(len(name) for name, _ in rows)
    print(f"| {'count'.ljust(width)} | {plan.transport:>10} |\n|-{'-' * width}-|-----------:|")
    for name, count in rows:
        print(f"| {name.ljust(width)} | {count:>10} |")
    for kind, length, gone in verdict.windows:
        print(f"{kind}: the last {length:.2f} s forgotten, {gone} tasks sent in it gone")
    for line in verdict.wrong[:_SHOWN]:
        print("WRONG", line)
    if len(verdict.wrong) > _SHOWN:
        print(f"… and {len(verdict.wrong) - _SHOWN} more")


def show_repeats(folder: Path) -> int:
    """Print the cost of each fault to each process, from the files that a run left in a folder. Return 0."""
    with (folder / "events.jsonl").open() as events, (folder / "faults.jsonl").open() as faults:
        tasks, _batches = tasks_of(map(json.loads, events))
        inflicted = [Fault(**json.loads(line)) for line in faults]
    print(f"{'fault':<16} {'at':>14} {'process':>8} {'pool':<13} finished again")
    for each in repeats(tasks.values(), inflicted):
        limit = f" of at most {each.allowed}" if each.killed else ""
        print(f"{each.kind:<16} {each.begins:14.3f} {each.owner:>8} {each.pool:<13} {each.runs}{limit}")
    return 0
