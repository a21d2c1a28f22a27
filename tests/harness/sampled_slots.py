"""Threads that run functions as slots run handlers, and the sampler of slots that watches them."""

import threading
from collections.abc import Callable
from time import monotonic, sleep

from millpond.broker.stats.window import Place
from millpond.worker.report.slot_sampler import SlotSampler

#: Its `call` calls a handler as if from a module of the worker: there the stack ends for the sampler.
_WORKER = {"__name__": "millpond.worker.slot"}
exec("def call(handler):\n    return handler()", _WORKER)


class Slots:
    """Runs functions as slots do, and samples them."""

    def __init__(self) -> None:
        self.kinds: dict[int, str] = {}
        self.sampler = SlotSampler(self.kinds)

    def run(self, function: Callable[[], object], kind: str = "work") -> None:
        def slot() -> None:
            ident = threading.get_ident()
            self.kinds[ident] = kind
            try:
                _WORKER["call"](function)  # type: ignore[operator]
            finally:
                self.kinds.pop(ident)

        threading.Thread(target=slot, daemon=True).start()

    def places(self, seconds: float = 0.6) -> dict[Place, float]:
        """Sample for so many seconds, and return the share of the time that was spent in each place."""
        until = monotonic() + seconds
        while monotonic() < until:
            self.sampler.sample_slots()
            sleep(0.05)
        taken = self.sampler.take_samples()
        total = sum(taken.values())
        return {place: micros / total for place, micros in taken.items()}


#: The categories of a slot before the wait that a test is about. They last long on a busy machine.
COMPUTES = ("processor", "runnable", "interpreter")


def sample_until(slots: Slots, wanted: Callable[[dict[Place, float]], bool], seconds: float = 60) -> None:
    """Sample until `wanted` is true of the places. Fails after `seconds`."""
    deadline = monotonic() + seconds
    while not wanted(places := slots.places()):
        assert monotonic() < deadline, places


def largest_place(places: dict[Place, float]) -> Place:
    """Return the place where most of the time was spent."""
    return max(places, key=lambda each: places[each])


def main_place(slots: Slots) -> Place:
    """Sample until a slot waits for more than 0.6 of its time in one place, and return the place."""
    found: list[Place] = []

    def waits(places: dict[Place, float]) -> bool:
        found.append(largest_place(places))
        return places[found[-1]] > 0.6 and found[-1].category not in COMPUTES

    sample_until(slots, waits)
    return found[-1]
