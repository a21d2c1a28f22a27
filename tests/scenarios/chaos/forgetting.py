"""Faults of the server itself: it forgets its last moment, or its clock is set.

The loss is bounded: the writes within the time that the fault names. Each needs a server of its own sort, so
a run has faults of one kind alone.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.guarded import GuardedBroker
from tests.scenarios.chaos.server import Broker

KINDS = ("fail over", "restore copy", "cut power", "set clock")

#: The seconds that `everysec` may lose, and those that a replica or a copy is behind at most.
_UNSYNCED_SECONDS = 1.0
_BEHIND_SECONDS = 3.0

#: By how many seconds the clock is set.
STEPS = (1, -1, 60, -60, 3600)

#: The clock is set forward by so much at the end, so that no message stays delayed by an earlier step back.
_FORWARD_SECONDS = 7200


def broker_for(kind: str | None, folder: Path) -> Broker | GuardedBroker:
    """Return the server under test for faults of a kind."""
    if kind == "fail over":
        return GuardedBroker(folder)
    if kind in ("restore copy", "cut power"):
        return Broker(folder, fsync="everysec")
    return Broker(folder, set_clock=kind == "set clock")


class Forgetting:
    """Inflict faults of one kind on the server."""

    def __init__(
        self, seed: int, kind: str, broker: Broker | GuardedBroker, log: Callable[[str], None]
    ) -> None:
        self._kind, self._broker, self._log = kind, broker, log
        self._draw = random.Random(f"{seed}/forgetting")
        self.inflicted: list[Fault] = []
        self.under_way = False

    def tick(self) -> None:
        """Do nothing: each of these faults is over when it was inflicted."""

    def inflict(self) -> bool:
        """Inflict one fault."""
        fault = getattr(self, "_" + self._kind.replace(" ", "_"))(self._broker)
        self.inflicted.append(fault)
        self._log(f"{fault.begins:.3f} {self._kind}, forgets {fault.forgotten_seconds:.2f} s")
        return True

    def finish(self) -> None:
        """Set the clock forward, so that delayed messages come due."""
        if self._kind == "set clock" and isinstance(self._broker, Broker):
            self._broker.ahead_seconds += _FORWARD_SECONDS

    def _fail_over(self, broker: GuardedBroker) -> Fault:
        return self._forgetful(*broker.fail_over(self._draw.uniform(0.2, _BEHIND_SECONDS)))

    def _restore_copy(self, broker: Broker) -> Fault:
        begins = broker.all_written_at()
        copy = broker.copy()
        time.sleep(self._draw.uniform(0.2, _BEHIND_SECONDS))
        broker.kill()
        until = time.time()
        broker.put_back(copy)
        broker.start()
        return self._forgetful(begins, until)

    def _cut_power(self, broker: Broker) -> Fault:
        begins = broker.all_written_at()
        synced = broker.size
        time.sleep(self._draw.uniform(0.1, _UNSYNCED_SECONDS))
        broker.kill()
        until = time.time()
        broker.cut_off(self._draw.randint(synced, broker.size))
        broker.start()
        return self._forgetful(begins, until)

    def _set_clock(self, broker: Broker) -> Fault:
        begins = time.time()
        broker.ahead_seconds += self._draw.choice(STEPS)
        return Fault(self._kind, begins, time.time())

    def _forgetful(self, since: float, until: float) -> Fault:
        return Fault(self._kind, since, time.time(), forgets=(since, until))
