"""Faults of the server itself: it loses its last writes, or its clock is set.

The loss is bounded: a fault records the time whose writes may be lost. Each kind of fault needs a server that
is set up for it, so a run has faults of one kind.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.guarded import GuardedBroker
from tests.scenarios.chaos.server import Broker

KINDS = ("fail over", "restore copy", "cut power", "set clock")

#: The seconds of writes that `appendfsync everysec` may lose, and that a replica or a copy lacks at most.
_UNSYNCED_SECONDS = 1.0
_BEHIND_SECONDS = 3.0

#: The seconds by which the clock is set forward or back.
STEPS = (1, -1, 60, -60, 3600)

#: The clock is set forward by so much at the end, so that no message stays delayed by an earlier step back.
_FORWARD_SECONDS = 7200


def broker_for(kind: str | None, folder: Path) -> Broker | GuardedBroker:
    """Return the running server under test, set up for faults of a kind. None: for those of `faults.py`."""
    if kind == "fail over":
        return GuardedBroker(folder)
    if kind in ("restore copy", "cut power"):
        return Broker(folder, fsync="everysec")
    return Broker(folder, set_clock=kind == "set clock")


class Forgetting:
    """Inflicts faults of one kind on the server."""

    def __init__(
        self, seed: int, kind: str, broker: Broker | GuardedBroker, log: Callable[[str], None]
    ) -> None:
        self._kind, self._broker, self._log = kind, broker, log
        self._draw = random.Random(f"{seed}/forgetting")
        self.inflicted: list[Fault] = []
        self.under_way = False

    def tick(self) -> None:
        """Do nothing: each of these faults has ended when `inflict` returns."""

    def inflict(self) -> bool:
        """Inflict one fault. Return True."""
        fault = getattr(self, "_" + self._kind.replace(" ", "_"))(self._broker)
        self.inflicted.append(fault)
        self._log(f"{fault.begins:.3f} {self._kind}, forgets {fault.forgotten_seconds:.2f} s")
        return True

    def finish(self) -> None:
        """Set the clock forward, so that all delayed messages are due. For other kinds do nothing."""
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
