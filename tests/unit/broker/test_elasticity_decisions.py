"""When a measured elasticity proves that throughput grows with slots, and when that it does not."""

import math
from dataclasses import replace

import pytest

from millpond.broker.stats.elasticity import Elasticity


def measured(at_once: float, slots: int, *, error: float = 0.08, step_error: float = 0.3) -> Elasticity:
    """Return what is measured of a pool whose dependency takes so many at once."""
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
