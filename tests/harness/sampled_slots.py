"""Threads that run functions as slots do, and are sampled."""

import threading
from collections.abc import Callable
from time import monotonic, sleep

from millpond.broker.stats.window import Place
from millpond.worker.report.slot_sampler import SlotSampler

#: Calls a handler from a module of the worker, where its stack ends.
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
        """Return the share of the time that was spent in each place."""
        until = monotonic() + seconds
        while monotonic() < until:
            self.sampler.sample_slots()
            sleep(0.05)
        taken = self.sampler.take_samples()
        total = sum(taken.values())
        return {place: micros / total for place, micros in taken.items()}


#: The places of a slot before the wait that the test is about; they last long on a busy machine.
COMPUTES = ("processor", "runnable", "interpreter")


def seen_until(slots: Slots, wanted: Callable[[dict[Place, float]], bool], seconds: float = 60) -> None:
    """Look until the places are those that are wanted."""
    deadline = monotonic() + seconds
    while not wanted(places := slots.places()):
        assert monotonic() < deadline, places


def main(places: dict[Place, float]) -> Place:
    """Return the place where most of the time was spent."""
    return max(places, key=lambda each: places[each])


def main_place(slots: Slots) -> Place:
    """Return the place where a slot waits."""
    found: list[Place] = []

    def waits(places: dict[Place, float]) -> bool:
        found.append(main(places))
        return places[found[-1]] > 0.6 and found[-1].category not in COMPUTES

    seen_until(slots, waits)
    return found[-1]
