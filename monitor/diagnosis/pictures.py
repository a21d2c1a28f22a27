"""The two pictures of a diagnosis: where a slot's time goes, and throughput against slots."""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.monitor.diagnosis.diagnosis import Diagnosis

#: Sizes of the second picture, in units of its drawing; the axes leave a margin for their numbers.
WIDTH, HEIGHT, MARGIN = 240, 120, 28

#: Shares below this are drawn together.
LEAST = 0.03


@dataclass(frozen=True)
class Part:
    """A part of a slot's time: its label, its share of all, and the number of its colour."""

    label: str
    share: float
    colour: int


@dataclass(frozen=True)
class Point:
    """A point of throughput against slots: where it is drawn, and what it says."""

    x: float
    y: float
    slots: int
    rate: float
    foretold: bool


def parts(diagnosis: Diagnosis) -> list[Part]:
    """Return the parts of a slot's time, the largest first, adding up to 1; small ones as one."""
    large = [(label, share) for label, share in diagnosis.slot_time if share >= LEAST]
    small = sum(share for _, share in diagnosis.slot_time) - sum(share for _, share in large)
    if small > 0.005:
        large.append(("the rest", small))
    return [Part(label, share, n % 8) for n, (label, share) in enumerate(large)]


def points(diagnosis: Diagnosis) -> list[Point]:
    """Return the measured points of throughput against slots, and the foretold one behind them."""
    known = [(slots, rate, False) for slots, rate in diagnosis.measured]
    if known and diagnosis.slots_wanted and diagnosis.foretold_rate is not None:
        known.append((diagnosis.slots_wanted, diagnosis.foretold_rate, True))
    if not known:
        return []
    most_slots, most_rate = max(slots for slots, _, _ in known), max(rate for _, rate, _ in known) or 1.0
    return [
        Point(
            round(MARGIN + (WIDTH - 2 * MARGIN) * slots / most_slots, 1),
            round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * rate / most_rate, 1),
            slots,
            rate,
            foretold,
        )
        for slots, rate, foretold in sorted(known)
    ]


def path(drawn: Sequence[Point]) -> str:
    """Return the line through the points, from the origin."""
    return f"M{MARGIN},{HEIGHT - MARGIN}" + "".join(f"L{each.x},{each.y}" for each in drawn)
