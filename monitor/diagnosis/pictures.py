"""The two pictures of a diagnosis: the parts of a slot's time, and throughput against slots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from millpond.monitor.diagnosis.diagnosis import Diagnosis

#: Sizes of the second picture, in units of its drawing; the axes leave room for their numbers and names.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 240, 140, 38, 30, 18, 14

#: Shares below the first are drawn together, and are left out if they add up to less than the second.
LEAST, LEAST_REST = 0.03, 0.005

#: The number of colours of parts in pages.css.
COLOURS = 8


@dataclass(frozen=True)
class Part:
    """A part of a slot's time: its label, its share of all, and the number of its colour."""

    label: str
    share: float
    colour: int


@dataclass(frozen=True)
class Point:
    """A point of throughput against slots: its place in the drawing, and its figures."""

    x: float
    y: float
    slots: int
    rate: float
    predicted: bool


@dataclass(frozen=True)
class AxisTick:
    """A number on the axis of the throughput, and its place in the drawing."""

    y: float
    rate: float


def slot_time_parts(diagnosis: Diagnosis) -> list[Part]:
    """Return the parts of a slot's time, the largest first, adding up to 1. Small parts are one part."""
    large = [(label, share) for label, share in diagnosis.slot_time if share >= LEAST]
    small = sum(share for _, share in diagnosis.slot_time) - sum(share for _, share in large)
    if small > LEAST_REST:
        large.append(("the rest", small))
    return [Part(label, share, n % COLOURS) for n, (label, share) in enumerate(large)]


def throughput_points(diagnosis: Diagnosis) -> list[Point]:
    """Return the measured points of throughput against slots and the predicted one, in order of slots."""
    measured = _known_points(diagnosis)
    most_slots, most_rate = max((slots for slots, _, _ in measured), default=1), _axis_end(measured)
    return [
        Point(
            round(LEFT + (WIDTH - LEFT - RIGHT) * slots / most_slots, 1),
            _y_position(rate, most_rate),
            slots,
            rate,
            predicted,
        )
        for slots, rate, predicted in sorted(measured)
    ]


def axis_ticks(diagnosis: Diagnosis) -> list[AxisTick]:
    """Return the ticks of the axis of the throughput, from 0, in round steps."""
    top = _axis_end(_known_points(diagnosis))
    step = _round_step(top)
    return [AxisTick(_y_position(n * step, top), n * step) for n in range(round(top / step) + 1)]


def line_path(points: Sequence[Point]) -> str:
    """Return the `d` of an SVG path from the origin through the points."""
    return f"M{LEFT},{HEIGHT - BOTTOM}" + "".join(f"L{point.x},{point.y}" for point in points)


def _known_points(diagnosis: Diagnosis) -> list[tuple[int, float, bool]]:
    """Return the points of a diagnosis: the number of slots, the rate, and whether the rate is predicted."""
    measured = [(slots, rate, False) for slots, rate in diagnosis.measured]
    wanted, rate = diagnosis.slots_wanted, diagnosis.predicted_rate
    if measured and wanted and rate is not None and wanted not in {slots for slots, _, _ in measured}:
        measured.append((wanted, rate, True))
    return measured


def _axis_end(measured: Sequence[tuple[int, float, bool]]) -> float:
    """Return the rate at the end of the axis of the throughput: the highest one, rounded up to a step."""
    highest = max((rate for _, rate, _ in measured), default=0.0) or 1.0
    return math.ceil(highest / _round_step(highest)) * _round_step(highest)


def _round_step(top: float) -> float:
    """Return the distance of two ticks: 1, 2 or 5 times a power of ten, so that three to five reach `top`."""
    power = 10.0 ** math.floor(math.log10(top / 2))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if top / (digit * power) <= 5)


def _y_position(rate: float, top: float) -> float:
    """Return the vertical position of a rate in the drawing. `top` is the rate at the end of the axis."""
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * rate / top, 1)
