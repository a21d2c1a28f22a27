"""Inflict faults that are drawn from a seed, and record their processes and times for the verdict."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.scenarios.chaos.fleet import LEASE_SECONDS, Fleet
from tests.scenarios.chaos.server import Broker

#: The weight with which each kind of fault is drawn.
WEIGHTS = {
    "kill child": 25,
    "kill worker": 20,
    "kill supervisor": 3,
    "freeze worker": 12,
    "terminate worker": 12,
    "restart broker": 5,
    "cut connections": 23,
}

#: A worker process is hit only when it is older than this.
_STEADY_SECONDS = 3.0


@dataclass
class Fault:
    """One fault, with its start and end (Unix time). Without pids it hit all processes with a connection.

    `forgets` are the times between which the broker may have lost its writes, None if it lost none.
    """

    kind: str
    begins: float
    ends: float
    pids: list[int] = field(default_factory=list)
    forgets: tuple[float, float] | None = None

    @property
    def forgotten_seconds(self) -> float:
        """The length of the time whose writes the broker may have lost."""
        return 0.0 if self.forgets is None else self.forgets[1] - self.forgets[0]


class Faults:
    """Draws and inflicts faults of processes and connections. `tick` ends those that last for a time."""

    def __init__(
        self, seed: int, fleet: Fleet, broker: Broker, log: Callable[[str], None], *, only: str | None = None
    ) -> None:
        self._weights = WEIGHTS if only is None else {only: 1}
        self.fleet, self.broker, self.log = fleet, broker, log
        self.inflicted: list[Fault] = []
        self._draw = random.Random(f"{seed}/faults")
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._frozen: set[int] = set()

    def inflict(self) -> bool:
        """Inflict one fault. Return False if there was no process to hit for the kind that was drawn."""
        [kind] = self._draw.choices(list(self._weights), list(self._weights.values()))
        fault = getattr(self, "_" + kind.replace(" ", "_"))(kind)
        if fault is None:
            return False
        self.inflicted.append(fault)
        self.log(f"{fault.begins:.3f} {kind} {','.join(map(str, fault.pids)) or 'all'}")
        return True

    def finish(self) -> None:
        """Do nothing: `tick` ends the faults that last for a time."""

    def tick(self) -> None:
        """End the faults whose time is over, and start the supervisor again after it was killed."""
        now = time.time()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            entry[1]()

    @property
    def under_way(self) -> bool:
        """True if a fault still lasts."""
        return bool(self._later)

    def _kill_child(self, kind: str) -> Fault | None:
        return self._signal(kind, self.fleet.children(), signal.SIGKILL)

    def _kill_worker(self, kind: str) -> Fault | None:
        return self._signal(kind, self._steady(), signal.SIGKILL)

    def _terminate_worker(self, kind: str) -> Fault | None:
        return self._signal(kind, self._steady(), signal.SIGTERM)

    def _freeze_worker(self, kind: str) -> Fault | None:
        seconds = LEASE_SECONDS + self._draw.uniform(0.5, 2.0)
        fault = self._signal(kind, self._steady(), signal.SIGSTOP)
        if fault is not None:
            fault.ends = fault.begins + seconds
            [pid] = fault.pids
            self._frozen.add(pid)
            self._later.append((fault.ends, lambda: self._thaw(fault, pid)))
        return fault

    def _thaw(self, fault: Fault, pid: int) -> None:
        self._frozen.discard(pid)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).send_signal(signal.SIGCONT)
        fault.ends = time.time()

    def _kill_supervisor(self, kind: str) -> Fault | None:
        pids = [process.pid for process in self.fleet.family()]
        begins = time.time()
        self.fleet.kill()
        self._frozen.clear()
        self._later.append((begins + 0.2, self.fleet.start))
        return Fault(kind, begins, time.time(), pids)

    def _restart_broker(self, kind: str) -> Fault | None:
        fault = Fault(kind, time.time(), float("inf"))
        self.broker.kill()
        time.sleep(self._draw.uniform(0.0, 1.0))
        self.broker.start()
        fault.ends = time.time()
        return fault

    def _cut_connections(self, kind: str) -> Fault | None:
        begins = time.time()
        self.broker.cut_connections()
        return Fault(kind, begins, time.time())

    def _steady(self) -> list[psutil.Process]:
        workers = self.fleet.workers(steady_seconds=_STEADY_SECONDS)
        return [worker for worker in workers if worker.pid not in self._frozen]

    def _signal(self, kind: str, targets: list[psutil.Process], number: int) -> Fault | None:
        if not targets:
            return None
        target = self._draw.choice(sorted(targets, key=lambda process: process.pid))
        begins = time.time()
        with suppress(psutil.NoSuchProcess):
            target.send_signal(number)
        return Fault(kind, begins, time.time(), [target.pid])
