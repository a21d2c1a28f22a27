"""The work of a chaos task on any transport: record the start, hold a slot, end in the planned way."""

import time
from dataclasses import dataclass

from tests.scenarios.chaos import ledger


class Again(Exception):
    """Raised by a run that must be repeated in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class Failed(Exception):
    """Raised by a run that was planned to fail."""


@dataclass(frozen=True)
class Run:
    """One run of a task. `attempt` is the number of retries before it, `deliveries` begins at 1."""

    id: str
    attempt: int
    deliveries: int = 1


def work(run: Run, *, n: int, hold_seconds: float, retries: int, fails: bool) -> int:
    """Run one task and return `n`. Raises `Again` in the first `retries` attempts, `Failed` if it `fails`."""
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
