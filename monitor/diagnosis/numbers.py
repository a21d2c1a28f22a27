"""Compute the number of slots that a pool needs, and its throughput with them."""

import math

from millpond.broker.stats.elasticity import Elasticity

#: The planned use of slots (Little's law, with room for bursts).
PLANNED_USE = 0.8

#: The largest step in slots: a measurement says little about far more slots.
MOST_AT_ONCE = 1.5

#: The most by which Little's law may raise a measured rate.
MOST_ABOVE_MEASURED = 1.4


def predicted_rate(measured: Elasticity, slots: int, *, max_growth: float = math.inf) -> float:
    """Return the predicted ends a second with this number of slots, by the measured elasticity.

    The processors of the hosts allow `max_growth` times the rate of today.
    """
    return float(rate_now(measured) * min(max_growth, (slots / measured.slots) ** measured.for_added_slots))


def rate_now(measured: Elasticity) -> float:
    """Return the ends a second while all slots are in use, by a measured elasticity.

    It is the middle between the measured rate, which idle slots may have lowered, and slots divided by the
    service time (Little's law), which leaves out the time between two runs.
    """
    best_rate = max(measured.rate, measured.free_rate)
    limit = measured.slots / measured.service_seconds if measured.service_seconds else best_rate
    return (best_rate + min(limit, MOST_ABOVE_MEASURED * best_rate)) / 2 if limit > best_rate else best_rate


def predicted_and_actual_gain(measured: Elasticity, slots: int, rate: float) -> tuple[float, float]:
    """Return the predicted and the actual gain of a change to `slots`, each as a share of the rate before.

    `rate` is today's ends a second.
    """
    before = rate_now(measured)
    return predicted_rate(measured, slots) / before - 1, rate / before - 1


def slots_wanted(slots: int, *, in_rate: float, service_seconds: float) -> int:
    """Return the number of slots for the arriving tasks: at least one more, at most half as many again."""
    needed = math.ceil(in_rate * service_seconds / PLANNED_USE)
    return max(slots + 1, min(math.ceil(slots * MOST_AT_ONCE), needed or math.ceil(slots * MOST_AT_ONCE)))


def slots_that_suffice(measured: Elasticity, *, usual_seconds: float | None) -> int:
    """Return the fewest slots that keep a saturated dependency busy.

    If the service time without queueing is known, this is the rate times that time (Little's law).
    Otherwise it is the part of the slots that gave the same throughput.
    """
    if usual_seconds:
        return max(1, min(measured.slots, math.ceil(measured.rate * usual_seconds)))
    return measured.part if measured.high < 0.25 else measured.step_part or measured.slots


def clear_seconds(ready: int, *, rate: float, in_rate: float) -> float | None:
    """Return the seconds until the ready tasks are cleared, or None if they do not get fewer."""
    return ready / (rate - in_rate) if rate > in_rate else None
