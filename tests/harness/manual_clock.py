"""A clock that a test sets."""

from dataclasses import dataclass


@dataclass
class ManualClock:
    """A clock that shows `now`, seconds, until a test sets it."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
