"""Where a way differs from stock Celery: what using the feature gives there, and how that is said.

A feature that is not named here gives in every way what stock gives.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """What a feature gives in a way, where that is not what stock gives; `verdict`: differs or refused."""

    verdict: str
    gives: Any
    words: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.words}"


_DELAYED = "a task with an ETA waits in the broker, where no worker crashes; `millpond task ID` finds it"

#: Feature and way -> how it differs.
DIFFERENCES: dict[tuple[str, str], Difference] = {
    ("`scheduled`: tasks with an eta", "transport"): Difference("differs", False, _DELAYED),
    ("`task_unknown`", "app"): Difference(
        "differs",
        ["task_unknown"],
        "the message is put aside for a worker that has the task; after `unknown_kind_seconds` it is dead",
    ),
}
