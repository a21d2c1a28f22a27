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
    ("a child is killed, `acks_late` is not set", "app"): Difference(
        "differs",
        ["FAILURE", "WorkerLostError", 5],
        "it runs again, `max_deliveries` times; set `acks_late=False` for a task that must run once at most",
    ),
    ("`active`: `acknowledged`, `acks_late` is not set", "app"): Difference(
        "differs", False, "a task is acknowledged after its run"
    ),
    ("`control.shutdown`: no worker is left", "app"): Difference(
        "differs",
        False,
        "`millpond worker` starts another process: end it by SIGTERM, or `millpond drain POOL`",
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
