"""The work of a chaos task under any transport: note the start, hold a slot, end in the planned way."""

import time
from dataclasses import dataclass

from tests.scenarios.chaos import ledger


class Again(Exception):
    """The task is to be run again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class Failed(Exception):
    """The task failed, as it was told to."""


@dataclass(frozen=True)
class Run:
    """One run of one task: `attempt` counts retries, `deliveries` starts at 1."""

    id: str
    attempt: int
    deliveries: int = 1


def work(run: Run, *, n: int, hold_seconds: float, retries: int, fails: bool) -> int:
    """Run one task and return `n`. Raises `Again` for the first `retries` attempts, then `Failed`."""
    ledger.started(run.id, attempt=run.attempt, deliveries=run.deliveries)
    if hold_seconds:
        time.sleep(hold_seconds)
    if run.attempt < retries:
        after = 0.2 + 0.1 * (n % 8)
        ledger.ended(run.id, "retry", attempt=run.attempt, after=after)
        raise Again(after)
    ledger.ended(run.id, "fail" if fails else "ok", attempt=run.attempt)
    if fails:
        raise Failed("it was told to")
    return n
