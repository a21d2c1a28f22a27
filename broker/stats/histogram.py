"""Count durations in fixed buckets, so that what many processes measured can be added up.

The bounds are 1, 1.5, 2, 3, 5 and 7 of every power of ten from 0.1 ms to an hour and more: a quantile
read from them is off by a fifth at most. Prometheus gets 1, 2 and 5, which are among them.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

#: Upper bounds in seconds; what is longer than the last is counted in one more bucket.
BOUNDS = tuple(float(f"{step}e{power}") for power in range(-4, 4) for step in (1, 1.5, 2, 3, 5, 7))

#: The bounds as text, which is how they are stored: other bounds in a later version mix with these.
NAMES = (*(f"{bound:g}" for bound in BOUNDS), "inf")


def bucket(seconds: float) -> int:
    """Return the index of the bucket that a duration falls into."""
    return bisect_left(BOUNDS, seconds)


@dataclass(frozen=True)
class Histogram:
    """Hold how often each duration was seen, by bucket, and their sum in seconds."""

    counts: tuple[int, ...] = (0,) * len(NAMES)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Count all that was seen."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Return the mean in seconds; None when nothing was seen."""
        return self.seconds / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return the seconds that `share` of what was seen took at most; None when nothing was seen.

        Within a bucket the durations are taken to be spread evenly, as Prometheus does.
        """
        wanted, below = share * self.count, 0
        if not self.count:
            return None
        for index, count in enumerate(self.counts):
            if count and below + count >= wanted:
                if index == len(BOUNDS):
                    return BOUNDS[-1]
                low = BOUNDS[index - 1] if index else 0.0
                return low + (BOUNDS[index] - low) * (wanted - below) / count
            below += count
        return BOUNDS[-1]

    def __add__(self, other: "Histogram") -> "Histogram":
        both = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(both, self.seconds + other.seconds)

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Return what was seen since an earlier state of the same histogram."""
        since = tuple(max(0, a - b) for a, b in zip(self.counts, earlier.counts, strict=True))
        return Histogram(since, max(0.0, self.seconds - earlier.seconds))


def total(histograms: Iterable[Histogram]) -> Histogram:
    """Add histograms up."""
    return sum(histograms, Histogram())
