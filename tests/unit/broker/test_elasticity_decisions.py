"""When a measured elasticity proves that throughput grows with slots, and when that it does not."""

import math
from dataclasses import replace

import pytest

from millpond.broker.stats import probing
from millpond.broker.stats.elasticity import Elasticity, still_holds
from millpond.broker.stats.histogram import Histogram
from millpond.broker.stats.probe import longest_turn_seconds
from millpond.broker.stats.window import KindFigures, Window


def measured(at_once: float, slots: int, *, error: float = 0.08, step_error: float = 0.3) -> Elasticity:
    """Return the measurement of a pool whose dependency takes so many at once."""
    half, step = slots // 2, min(slots - 1, math.ceil(0.75 * slots))

    def between(part: int) -> float:
        return math.log(min(slots, at_once) / min(part, at_once)) / math.log(slots / part)

    found = Elasticity(between(half), error, slots, half, 20.0, 10.0, 20.0, 0.0, 1)
    return replace(found, step=between(step), step_error=step_error, step_part=step) if step > half else found


@pytest.mark.parametrize("slots", [2, 3, 4, 6, 8, 16])
def test_slots_that_lack_are_proven(slots: int) -> None:
    """With a dependency for many, throughput grows with slots."""
    assert measured(1_000, slots, error=0.04).grows
    assert not measured(1_000, slots, error=0.05).saturated


@pytest.mark.parametrize(("slots", "at_once"), [(s, k) for s in (2, 3, 4, 6, 8) for k in range(1, s)])
@pytest.mark.parametrize("error", [0.01, 0.05, 0.1, 0.3])
def test_a_dependency_for_fewer_than_the_slots_is_never_growth(
    slots: int, at_once: int, error: float
) -> None:
    """Whatever it takes at once below the slots, and however precise, no growth is proven."""
    assert not measured(at_once, slots, error=error, step_error=error).grows


@pytest.mark.parametrize(
    ("value", "error", "grows"), [(0.9, 0.05, False), (0.92, 0.07, False), (0.95, 0.1, True)]
)
def test_growth_that_is_below_that_of_slots_needs_more_proof(value: float, error: float, grows: bool) -> None:
    """The first two were measured of eight slots whose service takes seven at once; the third may be 1."""
    assert replace(measured(1_000, 8), value=value, error=error).grows is grows


@pytest.mark.parametrize(("slots", "at_once"), [(8, 1), (8, 2), (8, 4), (4, 1), (4, 3), (8, 6)])
def test_a_full_dependency_is_proven(slots: int, at_once: int) -> None:
    """One that takes up to three quarters of the slots is found to be full."""
    assert measured(at_once, slots, error=0.1, step_error=0.3).saturated


def test_two_results_that_are_not_sure_are_surer_together() -> None:
    """The error of two equal results is smaller by the root of two."""
    unsure = measured(1_000, 4, error=0.4)
    assert not unsure.decides
    joined = unsure.with_earlier(unsure)
    assert joined.value == pytest.approx(unsure.value)
    assert joined.error == pytest.approx(0.4 / math.sqrt(2))
    assert joined.grows


@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("left", [-5.0, 0.0, 2.0, 7.0, 15.0, 72.0])
def test_a_probe_is_no_longer_than_its_budget_allows(mean: float, left: float) -> None:
    """The greatest cost of a probe is left of the budget, or it is not begun."""
    minute = Window(60.0, 480.0, 480.0, {"order": KindFigures(ended=100, service_seconds=100 * mean)})
    found = probing.Candidate("p", 8, ("q",), minute)
    seconds = probing._affordable_seconds(found, left)
    assert seconds is None or max(seconds, longest_turn_seconds(mean)) * probing.COST <= left
    assert seconds is not None or left < 33


def test_a_result_of_more_slots_holds_for_the_shorter_runs_of_fewer() -> None:
    """Where two slots waited for each other, one of them alone runs half as long."""
    two = replace(measured(1, 2), service_seconds=0.4)
    assert still_holds(two, 0.2, slots=1)
    assert not still_holds(two, 0.2)
    assert not still_holds(two, 0.8, slots=1)


@pytest.mark.parametrize("slots", [3, 4, 6, 8])
def test_runs_that_were_longer_with_prefetched_messages_wait_for_each_other(slots: int) -> None:
    """Without prefetch, a dependency for one fewer than the slots resembles one for all of them."""
    found = measured(1_000, slots, error=0.04)
    assert found.with_slowdown(1.0).grows
    assert found.with_slowdown(1.08).grows
    assert not found.with_slowdown(slots / (slots - 1)).grows
    assert found.with_slowdown(4.0) == found


def test_runs_before_a_probe_are_compared_kind_by_kind() -> None:
    """A change of mixture is no slowdown; kinds that were not seen before are not compared."""
    kinds = {
        "order": KindFigures(ended=100, service_seconds=12.0),
        "report": KindFigures(ended=1, service_seconds=3),
    }
    window = Window(10, 80, 80, kinds)

    def of(count: int, seconds: float) -> Histogram:
        return Histogram((count, *Histogram().counts[1:]), seconds)

    before = {"order": of(500, 60.0)}
    after = {"order": of(600, 70.0), "report": of(10, 25.0)}
    assert probing.compute_slowdown(window, before, after) == pytest.approx((100 * 0.12 + 10 * 3) / (10 + 25))
    assert probing.compute_slowdown(window, {}, {"mail": of(100, 50.0)}) == 1.0
