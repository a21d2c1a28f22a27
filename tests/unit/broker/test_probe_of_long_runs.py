"""A probe of a simulated pool: how surely it decides, by the length of the runs."""

import heapq
import random
from collections.abc import Callable

import pytest

from millpond.broker.connection import Store
from millpond.broker.stats import probe, probing
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.probe import Probe
from millpond.broker.stats.window import KindFigures, Window

MANY = 1_000
#: The time in which a slot fetches its next task, seconds.
FETCH_SECONDS = 0.003


class SimulatedPool:
    """A pool with a backlog whose runs ask a dependency that works on `permits` requests at a time."""

    def __init__(self, slots: int, seconds: float, permits: int, chance: random.Random) -> None:
        self.slots, self.seconds, self.limit, self.chance = slots, seconds, slots, chance
        self.now, self.ended = 0.0, 0
        self._free_at = [0.0] * permits
        self._ends: list[float] = []
        self.sleep(20 * seconds)

    @property
    def mean_seconds(self) -> float:
        """Return the mean service time, the wait for the dependency included."""
        return self.seconds * max(1.0, self.slots / len(self._free_at))

    @property
    def in_flight(self) -> int:
        """Return the number of runs."""
        return len(self._ends)

    def sleep(self, seconds: float) -> None:
        """Move the clock on: runs end, and others begin under the limit."""
        until = self.now + seconds
        while True:
            while len(self._ends) < self.limit:
                self._begin_run()
            if self._ends[0] > until:
                self.now = until
                return
            self.now = heapq.heappop(self._ends)
            self.ended += 1

    def _begin_run(self) -> None:
        began = max(self.now + FETCH_SECONDS, heapq.heappop(self._free_at))
        end = began + self.seconds * self.chance.uniform(0.95, 1.05)
        heapq.heappush(self._free_at, end)
        heapq.heappush(self._ends, end)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimulatedPool], Elasticity]:
    """Return a function that probes a simulated pool as long as a worker would."""

    def run(pool: SimulatedPool) -> Elasticity:
        def limit(_store: Store, _queue: str, max_count: int, _until_ms: int) -> None:
            pool.limit = max_count or pool.slots

        monkeypatch.setattr(probe, "_limit_in_flight", limit)
        monkeypatch.setattr(probe, "server_time_ms", lambda _: int(pool.now * 1000))
        monkeypatch.setattr(probe.time, "monotonic", lambda: pool.now)
        monkeypatch.setattr(Probe, "_count_in_flight", lambda _: pool.in_flight)
        monkeypatch.setattr(Probe, "_queue_lengths", lambda _: [MANY])
        monkeypatch.setattr(Probe, "_count_ended", lambda _: (pool.ended, int(pool.now * 1000)))
        mean = pool.mean_seconds
        minute = Window(60, 60, 60, {"order": KindFigures(ended=100, service_seconds=100 * mean)})
        longest = probing.longest_probe_seconds(probing.Candidate("p", pool.slots, ("q",), minute))
        prober = Probe(
            Store.__new__(Store), ["q"], slots=pool.slots, service_seconds=mean, rng=pool.chance,
            sleep=pool.sleep,
        )  # fmt: skip
        found = prober.run(max_seconds=longest)
        assert found is not None
        return found

    return run


@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.0, 1.5, 3.0])
@pytest.mark.parametrize(("slots", "permits"), [(8, MANY), (8, 2), (8, 4), (4, MANY), (4, 1), (2, 1)])
def test_a_probe_decides_of_runs_of_seconds_as_of_short_ones(
    probed: Callable[[SimulatedPool], Elasticity], seconds: float, slots: int, permits: int
) -> None:
    """One probe proves that slots lack, or that a dependency is saturated, in nearly all cases."""
    found = [probed(SimulatedPool(slots, seconds, permits, random.Random(seed))) for seed in range(20)]
    right = sum(each.grows if permits == MANY else each.saturated for each in found)
    assert right >= 16, [(each.value, each.error, each.step) for each in found]
    assert permits == MANY or not any(each.grows for each in found)


@pytest.mark.parametrize(
    ("slots", "permits", "seconds"),
    [
        *(
            (slots, permits, seconds)
            for slots, permits in ((8, 6), (4, 3))
            for seconds in (0.05, 0.4, 1.5, 3.0)
        ),
        *((8, 7, seconds) for seconds in (0.4, 1.0, 1.5, 3.0)),
    ],
)
def test_a_dependency_for_nearly_all_slots_is_hardly_ever_growth(
    probed: Callable[[SimulatedPool], Elasticity], seconds: float, slots: int, permits: int
) -> None:
    """Where only the last step gains little, more slots are advised in one case of ten at most.

    One permit fewer than slots is not told from enough of them if fetching takes a good part of a short run.
    """
    found = [probed(SimulatedPool(slots, seconds, permits, random.Random(seed))) for seed in range(20)]
    assert sum(each.grows for each in found) <= 2
