"""The differences of a way from stock Celery: the result of a feature there, and its explanation.

A feature that is not named here has the same result in every way as on stock.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A feature's result in a way where it is not stock's; the `verdict` is `differs` or `refused`."""

    verdict: str
    gives: Any
    words: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.words}"


_DELAYED = "a task with an ETA waits in the broker, where no worker crashes; `millpond task ID` finds it"

#: Feature and way -> how it differs.
DIFFERENCES: dict[tuple[str, str], Difference] = {
    ("`scheduled`: tasks with an eta", "transport"): Difference("differs", False, _DELAYED),
    ("`accept_content` refuses", "app"): Difference(
        "differs", "FAILURE", "the message becomes a dead letter, and its result says so; stock drops it"
    ),
    ("`rate_limit`", "app"): Difference(
        "refused", [False, False], "a rate limit holds for the fleet: millpond queue set QUEUE --rate 50/s"
    ),
    ("`task_unknown`", "app"): Difference(
        "differs",
        ["task_unknown"],
        "the message is put aside for a worker that has the task; after `unknown_kind_seconds` it is dead",
    ),
}

#: Options of `celery worker` that `millpond worker` refuses, and their replacements.
OPTIONS = {
    "--concurrency": "`concurrency` of the pool, in millpond.toml",
    "--pool": "`executor` of the pool, `prefork` or `threads`; others: the transport alone",
    "--queues": "`queues` of the pool",
    "--autoscale": "a fixed number of slots: scale processes or containers, by `LLEN` or `millpond metrics`",
    "--beat": "`celery beat` beside it, or `millpond scheduler`, of which any number may run",
    "--max-tasks-per-child": "`max_tasks_per_child` of the pool",
    "--max-memory-per-child": "`max_memory_per_child_mb` of the pool",
    "--time-limit": "`hard_limit_seconds` of the queue, or the task's own",
    "--soft-time-limit": "`soft_limit_seconds` of the queue, or the task's own",
    "--prefetch-multiplier": "`prefetch` of the pool",
    "--detach": "a service manager: deploy/systemd",
    "--purge": "`celery purge`",
}
