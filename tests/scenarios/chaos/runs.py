"""The tasks of a run and their runs, from the events of the ledger."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """One run of a task: its process (`pid`) and that process's worker (`owner`), its start and end.

    `how` is how it ended: `ok`, `fail` or `retry`, and then `after` is the wait for the next run in seconds.
    """

    attempt: int
    pid: int
    owner: int
    started: float
    ended: float | None = None
    how: str = ""
    after: float = 0.0


@dataclass
class Task:
    """A task: the outcome of its sending (`taken`, `refused`, `unknown`), and its runs, the earliest first.

    `due` is None for a task without a delay.
    """

    id: str
    outcome: str = ""
    batch: str | None = None
    due: float | None = None
    #: When its sending began, and when its producer recorded the outcome.
    sent_at: float = 0.0
    noted_at: float = 0.0
    runs: list[Run] = field(default_factory=list)

    @property
    def ended(self) -> set[str]:
        """The ways in which its runs ended for good: `ok`, `fail`, both or none."""
        return {run.how for run in self.runs} & {"ok", "fail"}

    def attempts(self) -> dict[int, list[Run]]:
        """Return the runs by attempt, which is the number of retries before."""
        grouped = defaultdict(list)
        for run in self.runs:
            grouped[run.attempt].append(run)
        return grouped


def tasks_of(events: Iterable[dict[str, Any]]) -> tuple[dict[str, Task], list[str]]:
    """Return the tasks by id, and the ids of the batches."""
    tasks: dict[str, Task] = {}
    batches = []
    for event in events:
        if event["event"] == "batch":
            batches.append(event["id"])
            continue
        task = tasks.setdefault(event["id"], Task(event["id"]))
        match event["event"]:
            case "started":
                task.runs.append(Run(event["attempt"], event["pid"], event["owner"], event["at"]))
            case "ended":
                _end(task, event)
            case outcome:
                task.outcome, task.batch = outcome, event["batch"]
                task.sent_at, task.noted_at = event["sent_at"], event["noted_at"]
                task.due = event["sent_at"] + event["delay"] if event["delay"] else None
    for task in tasks.values():
        task.runs.sort(key=lambda run: run.started)
    return tasks, batches


def _end(task: Task, event: dict[str, Any]) -> None:
    for run in task.runs:
        if (run.attempt, run.pid, run.ended) == (event["attempt"], event["pid"], None):
            run.ended, run.how, run.after = event["at"], event["how"], event["after"]
            return


def early(task: Task, tolerance_seconds: float) -> bool:
    """True if a run of the task began before it was due, by its delay or by the wait of a retry."""
    due: dict[int, float] = {} if task.due is None else {0: task.due}
    for run in task.runs:
        if run.how == "retry" and run.ended is not None:
            again = run.ended + run.after
            due[run.attempt + 1] = min(again, due.get(run.attempt + 1, again))
    return any(run.started < due.get(run.attempt, 0.0) - tolerance_seconds for run in task.runs)
