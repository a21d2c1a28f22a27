"""Histograms of measurements of many processes."""

import random

import pytest

from millpond.broker.stats.histogram import BOUNDS, NAMES, Histogram, bucket_of, sum_histograms


def histogram(durations: list[float]) -> Histogram:
    counts = [0] * len(NAMES)
    for seconds in durations:
        counts[bucket_of(seconds)] += 1
    return Histogram(tuple(counts), sum(durations))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_quantile_is_off_by_a_fifth_at_most(share: float) -> None:
    """Whatever the durations are like, from a fraction of a millisecond to minutes."""
    draw = random.Random(7)
    for centre in (0.0004, 0.003, 0.04, 0.8, 12.0, 400.0):
        seen = sorted(centre * draw.lognormvariate(0, 0.7) for _ in range(5_000))
        exact = seen[int(share * len(seen)) - 1]
        assert histogram(seen).quantile(share) == pytest.approx(exact, rel=0.2)


def test_parts_add_up_and_an_earlier_state_can_be_taken_off() -> None:
    """Measurements of processes add up; those since a sample are the difference."""
    first, second = histogram([0.001, 2.0]), histogram([0.5])
    both = sum_histograms([first, second])
    assert (both.count, both.seconds) == (3, pytest.approx(2.501))
    assert both - first == second
    assert (first - both).count == 0


def test_nothing_seen_has_no_quantile_and_the_longest_is_cut() -> None:
    """No figure is invented for nothing, and one for durations longer than every bound."""
    assert Histogram().quantile(0.5) is None
    assert histogram([1e9]).quantile(0.99) == BOUNDS[-1]
