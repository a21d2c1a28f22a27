"""How many slots a pool wants and what they would bring: foretold, to be compared with what came."""

import math

from millpond.broker.stats.elasticity import Elasticity

#: Slots are planned to be in use for this share of their time (Little's law with room for bursts).
PLANNED_USE = 0.8

#: At most so many times as many slots at a step: what was measured below says little about far above.
MOST_AT_ONCE = 1.5


def foretold_rate(measured: Elasticity, slots: int) -> float:
    """Return the ends a second that so many slots would bring, by the measured elasticity."""
    grown = max(0.0, min(1.0, measured.value))
    return float(measured.rate * (slots / measured.slots) ** grown)


def slots_wanted(slots: int, *, in_rate: float, service_seconds: float) -> int:
    """Return the slots that what arrives needs, at least one more and at most half as many again."""
    needed = math.ceil(in_rate * service_seconds / PLANNED_USE)
    return max(slots + 1, min(math.ceil(slots * MOST_AT_ONCE), needed or math.ceil(slots * MOST_AT_ONCE)))


def slots_that_suffice(measured: Elasticity, *, usual_seconds: float | None) -> int:
    """Return the fewest slots that keep a saturated dependency busy.

    Where the time of a task without queueing is known, it is the rate times that (Little's law); else the
    part of the slots at which the throughput was the same.
    """
    if usual_seconds:
        return max(1, min(measured.slots, math.ceil(measured.rate * usual_seconds)))
    return measured.part if measured.high < 0.25 else measured.slots


def clear_seconds(ready: int, *, rate: float, in_rate: float) -> float | None:
    """Return how long what waits takes to clear; None where more arrives than ends."""
    return ready / (rate - in_rate) if rate > in_rate else None
