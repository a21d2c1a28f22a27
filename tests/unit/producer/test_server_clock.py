"""The server's clock as a producer knows it: never behind, whatever an answer cost."""

from collections.abc import Iterator

import pytest

from millpond.broker.connection import Store
from millpond.producer import server_clock
from millpond.producer.server_clock import ServerClock

SERVER_AHEAD_SECONDS = 1_000.0


class Network:
    """Play time: the server reads its clock at the end of the way there, and every answer has its length."""

    def __init__(self, trips: list[tuple[float, float]]) -> None:
        self.elapsed = 0.0
        self.asked = 0
        self.step_seconds = 0.0
        self._trips: Iterator[tuple[float, float]] = iter(trips)

    @property
    def server_ms(self) -> float:
        """Return the server's time now."""
        return (self.elapsed + SERVER_AHEAD_SECONDS + self.step_seconds) * 1000

    def answer(self, _store: Store) -> int:
        """Go there and back."""
        there, back = next(self._trips)
        self.asked += 1
        self.elapsed += there
        said = int(self.server_ms)
        self.elapsed += back
        return said


def clock_on(network: Network, patch: pytest.MonkeyPatch) -> ServerClock:
    """Make a clock that asks over the network."""
    patch.setattr(server_clock, "server_time_ms", network.answer)
    patch.setattr(server_clock, "elapsed_seconds", lambda: network.elapsed)
    return ServerClock(Store(None))


@pytest.mark.parametrize("trip", [(0.0, 0.0005), (0.0005, 0.0), (0.0002, 0.0003)])
def test_a_quick_answer_is_believed(trip: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """One question is enough, and the time is right to its length."""
    network = Network([trip])
    assert clock_on(network, monkeypatch).now_ms() == pytest.approx(network.server_ms, abs=1.5)
    assert network.asked == 1


@pytest.mark.parametrize("slow", [(0.0, 0.03), (0.03, 0.0), (0.015, 0.015)])
def test_a_slow_answer_makes_nothing_early(
    slow: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every answer is slow, the time is that of the server or later, never before it."""
    network = Network([slow] * server_clock.MOST_SAMPLES)
    found = clock_on(network, monkeypatch).now_ms()
    assert network.server_ms - 1 <= found <= network.server_ms + sum(slow) * 1000


def test_the_quickest_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow answer the server is asked again, and the quick one is believed."""
    network = Network([(0.03, 0.0), (0.0, 0.0004)])
    assert clock_on(network, monkeypatch).now_ms() == pytest.approx(network.server_ms, abs=1.5)


@pytest.mark.parametrize("step_seconds", [-3600.0, -60.0, -1.0, -0.05, 0.05, 1.0, 60.0, 3600.0])
def test_a_step_of_the_servers_clock_is_noticed_within_a_second(
    step_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next time that is asked for more than a second after the step is the new one, in two questions."""
    network = Network([(0.0002, 0.0003)] * 10)
    clock = clock_on(network, monkeypatch)
    clock.now_ms()
    network.elapsed += 0.5
    network.step_seconds = step_seconds
    network.elapsed += 0.6
    assert clock.now_ms() == pytest.approx(network.server_ms, abs=1.5)
    assert network.asked == 3


def test_without_a_step_a_second_costs_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow answer of the check alone is no step; within a second nothing is asked."""
    network = Network([(0.0, 0.0004), (0.03, 0.02), (0.0, 0.0004)])
    clock = clock_on(network, monkeypatch)
    for _ in range(3):
        network.elapsed += 0.3
        clock.now_ms()
    assert network.asked == 1
    network.elapsed += 0.6
    assert clock.now_ms() == pytest.approx(network.server_ms, abs=1.5)
    assert network.asked == 2
