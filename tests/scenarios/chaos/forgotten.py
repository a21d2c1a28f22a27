"""Tasks that the broker may have lost: those sent to it in the times that faults took from its memory."""

from collections.abc import Iterable, Sequence

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.errors import UnknownBatch
from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.persistence import persistently
from tests.scenarios.chaos.runs import Task

#: A producer notes an answer so long before or after it came.
_NOTED_SECONDS = 0.05


class Forgotten:
    """The moments forgotten, each of a fault, and the batches that were opened in one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = [fault for fault in faults if fault.forgets]
        self.batches: set[str] = set()

    def has(self, task: Task) -> bool:
        """True if the task was sent in a moment that was forgotten."""
        return self._fault_of(task) is not None

    def has_batch(self, store: Store, batch: str, members: Sequence[Task]) -> bool:
        """True if the broker does not know a batch that was opened in a moment that was forgotten.

        Another is closed again, as its producer does that waits for it.
        """
        if not self._faults:
            return False
        try:
            persistently(lambda: record.close_batch(store, batch))
        except UnknownBatch:
            if all(task.outcome != "taken" or self.has(task) for task in members):
                self.batches.add(batch)
        return batch in self.batches

    def windows(self, gone: Iterable[Task]) -> list[tuple[str, float, int]]:
        """Return for each fault its kind, the seconds forgotten, and how many of the tasks went with them."""
        of = [self._fault_of(task) for task in gone]
        return [
            (fault.kind, fault.forgotten_seconds, sum(each is fault for each in of)) for fault in self._faults
        ]

    def _fault_of(self, task: Task) -> Fault | None:
        for fault in self._faults:
            begins, ends = fault.forgets or (0.0, 0.0)
            if begins - _NOTED_SECONDS <= task.noted_at and task.sent_at <= ends:
                return fault
        return None
