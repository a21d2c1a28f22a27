"""Histograms of durations. All have the same buckets, so those of many processes can be added up.

The bounds are 1, 1.5, 2, 3, 5 and 7 times each power of ten, from 0.1 ms to more than an hour. The error of a
quantile is at most a fifth. Only the bounds of 1, 2 and 5 are exported to Prometheus.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

#: The upper bounds of the buckets, seconds. One more bucket counts longer durations.
BOUNDS = tuple(float(f"{step}e{power}") for power in range(-4, 4) for step in (1, 1.5, 2, 3, 5, 7))

#: The bounds as text, as they are stored. A later version may add bounds.
NAMES = (*(f"{bound:g}" for bound in BOUNDS), "inf")


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket of a duration."""
    return bisect_left(BOUNDS, seconds)


@dataclass(frozen=True)
class Histogram:
    """Counts of durations by bucket, and their sum in seconds."""

    counts: tuple[int, ...] = (0,) * len(NAMES)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return the duration in seconds that a `share` of all durations does not exceed, or None if empty.

        The durations in a bucket are assumed to be spread evenly, as Prometheus assumes. A duration beyond
        the last bound is returned as that bound.
        """
        rank, below = share * self.count, 0
        if not self.count:
            return None
        for count, lower, upper in zip(self.counts, (0.0, *BOUNDS), BOUNDS, strict=False):
            if count and below + count >= rank:
                return lower + (upper - lower) * (rank - below) / count
            below += count
        return BOUNDS[-1]

    def __add__(self, other: "Histogram") -> "Histogram":
        both = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(both, self.seconds + other.seconds)

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Return the durations that were added since an earlier state of the same histogram."""
        counts = tuple(max(0, a - b) for a, b in zip(self.counts, earlier.counts, strict=True))
        return Histogram(counts, max(0.0, self.seconds - earlier.seconds))


def sum_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram of the durations in all of the histograms."""
    return sum(histograms, Histogram())
