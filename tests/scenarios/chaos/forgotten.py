"""The tasks that the broker may have lost: they were sent in a time whose writes a fault took from it."""

from collections.abc import Iterable, Sequence

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.errors import UnknownBatch
from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.persistence import persistently
from tests.scenarios.chaos.runs import Task

#: The longest time between a reply of the broker and the producer's note of it.
_NOTED_SECONDS = 0.05


class Forgotten:
    """The times whose writes were lost, one for each fault, and the lost batches (`batches`)."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = [fault for fault in faults if fault.forgets]
        self.batches: set[str] = set()

    def has(self, task: Task) -> bool:
        """True if the task was sent in a time whose writes were lost."""
        return self._fault_of(task) is not None

    def has_batch(self, store: Store, batch: str, members: Sequence[Task]) -> bool:
        """True if the broker has lost a batch, together with all its accepted tasks.

        A batch that it has is closed again: the first close may have been lost.
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
        """Return each fault's kind, the seconds whose writes were lost, and the number of tasks lost."""
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
