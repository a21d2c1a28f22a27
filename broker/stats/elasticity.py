"""The elasticity of a pool's throughput: e = d ln X / d ln N, of throughput X against slots N.

e is 1 if only slots are lacking, and 0 if all slots wait for one thing: a full dependency, a lock, a
processor. (Gunther, "Guerrilla Capacity Planning", on the universal scalability law.) probe.py measures it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from json import dumps, loads

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import earlier_elasticity_key, elasticity_key

#: Throughput grows with slots if the lower end of the interval (90 %) is at least GROWS. It must also exceed
#: by MARGIN the elasticity that a dependency for one fewer than the slots would give, but never more than
#: MOST_ASKED, and the elasticity of the last step must be at least STEP_LEAST. Throughput does not grow if
#: the upper end, or that of the last step, is at most SATURATED.
GROWS, MARGIN, MOST_ASKED, STEP_LEAST, SATURATED = 0.7, 0.03, 0.88, 0.6, 0.5
#: The margin if the whole interval is below 1: the slots do wait for each other a little.
BELOW_ONE_MARGIN = 0.08
#: An interval that is wider than this, to each side, proves no growth, however high its middle is: throughput
#: does not grow faster than slots, so a value far above 1 is chance.
MOST_ERROR = 0.5

#: Runs that took this multiple of their time, or less, are taken to have been as long.
LEAST_SLOWDOWN = 1.1
#: Runs that took longer than a dependency for one fewer explains, by more than this, were other runs.
MOST_SLOWDOWN = 1.2

#: How long a result is used for a diagnosis, and how long it is kept to be compared with the throughput after
#: a change, ms.
FRESH_MS, KEPT_MS = 15 * 60 * 1000, 24 * 3600 * 1000


@dataclass(frozen=True)
class Elasticity:
    """The measured elasticity of a pool: `value` ± `error` (90 %), between `part` and `slots` tasks at once.

    `step` ± `step_error` is the same between `step_part` and `slots`; `step` is None if it was not measured.
    With `slots`, `part` and `step_part` tasks at once, `rate`, `part_rate` and `step_rate` tasks ended in a
    second. The probe took `seconds`, and in that time `lost` fewer tasks ended than without it.
    """

    value: float
    error: float
    slots: int
    part: int
    rate: float
    part_rate: float
    seconds: float
    lost: float
    at_ms: int
    #: The mean service time of the pool's runs when it was measured, seconds.
    service_seconds: float = 0.0
    #: The tasks that ended in a second just before the probe, when messages were prefetched.
    free_rate: float = 0.0
    step: float | None = None
    step_error: float = 0.0
    step_part: int = 0
    step_rate: float = 0.0

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.error

    @property
    def grows(self) -> bool:
        """True if throughput grows with slots, from half of them to all and still in the last step.

        Half of two slots is the step before both: for these, nothing more is measured.
        """
        if self.error > MOST_ERROR or (self.step is None and self.slots > 2):
            return False
        if self.step is not None and self.step < STEP_LEAST:
            return False
        margin = MARGIN if self.high >= 1 else BELOW_ONE_MARGIN
        return self.low >= max(GROWS, min(self._of_one_fewer + margin, MOST_ASKED))

    @property
    def _of_one_fewer(self) -> float:
        """The elasticity to be expected if a dependency serves one call fewer than there are slots."""
        if self.part >= self.slots - 1:
            return 0.0
        return math.log((self.slots - 1) / self.part) / math.log(self.slots / self.part)

    @property
    def saturated(self) -> bool:
        """True if throughput does not grow with slots, at least not in the last step."""
        return self.high <= SATURATED or (self.step is not None and self.step + self.step_error <= SATURATED)

    @property
    def decides(self) -> bool:
        """True if it is certain that throughput grows with slots, or that it does not."""
        return self.grows or self.saturated

    def with_slowdown(self, times: float) -> "Elasticity":
        """Return this result for runs that took `times` as long just before, when messages were prefetched.

        A probe has no prefetch. So a slot is idle for a moment between two runs, and a dependency that takes
        one fewer at once than there are slots is hardly waited for. Before, it was: throughput is slots
        divided by the time of a run (Little's law), and that time has grown with the slots.
        """
        if self.slots < 2:
            return self
        of_one_fewer = self.slots / (self.slots - 1)
        if not max(LEAST_SLOWDOWN, of_one_fewer**0.75) <= times <= MOST_SLOWDOWN * of_one_fewer:
            return self  # as long as before, or other runs: a cache was cold, or the dependency was slow
        value = min(self.value, 1 - math.log(times) / math.log(self.slots / self.part))
        if self.step is None:
            return replace(self, value=value)
        step = min(self.step, 1 - math.log(times) / math.log(self.slots / self.step_part))
        return replace(self, value=value, step=step)

    def with_earlier(self, earlier: "Elasticity") -> "Elasticity":
        """Return the mean, weighted by precision, of this result and an earlier one of the same slots."""
        value, error = _weighted_mean((self.value, self.error), (earlier.value, earlier.error))
        joined = replace(self, value=value, error=error)
        if self.step is None or earlier.step is None:
            return joined
        step, error = _weighted_mean((self.step, self.step_error), (earlier.step, earlier.step_error))
        return replace(joined, step=step, step_error=error)

    @property
    def for_added_slots(self) -> float:
        """The estimated elasticity if slots are added, 0 to 1."""
        value = self.value if self.step is None else min((self.value + self.step) / 2, self.value)
        return max(0.0, min(1.0, value))


def _weighted_mean(*estimates: tuple[float, float]) -> tuple[float, float]:
    """Return the mean of estimates (value, error), weighted by their precision, and its error."""
    weights = [1 / max(error, 0.01) ** 2 for _, error in estimates]
    value = sum(weight * value for weight, (value, _) in zip(weights, estimates, strict=True)) / sum(weights)
    return value, 1 / math.sqrt(sum(weights))


#: A result no longer holds if the mean service time has changed by this factor.
SHIFTED = 1.6


def still_holds(result: Elasticity, service_seconds: float, *, slots: int | None = None) -> bool:
    """True if the mean service time has changed by less than a factor `SHIFTED` since the measurement.

    It is also True if either time is unknown (0). If `slots` differs from the measured number, the lower
    bound changes in proportion: with fewer slots, runs that wait for each other are shorter.
    """
    if not result.service_seconds or not service_seconds:
        return True
    fewer = 1.0 if slots is None else slots / result.slots
    return fewer / SHIFTED < service_seconds / result.service_seconds < SHIFTED


def store_elasticity(store: Store, pool: str, result: Elasticity) -> None:
    """Store a result of a pool. If the last one is of another number of slots, it becomes the earlier one."""
    key, earlier = elasticity_key(pool, store.prefix), earlier_elasticity_key(pool, store.prefix)
    with translate_errors("storing a measured elasticity"):
        before = _parse_result(store.client.get(key))
        if before is not None and before.slots != result.slots:
            store.client.set(earlier, dumps(asdict(before)), px=KEPT_MS)
        store.client.set(key, dumps(asdict(result)), px=KEPT_MS)


def read_elasticities(
    store: Store, pools: Sequence[str]
) -> list[tuple[Elasticity | None, Elasticity | None]]:
    """Return two results of each pool, or None: the last one, and the last one of another number of slots."""
    if not pools:
        return []
    keys = [key(pool, store.prefix) for pool in pools for key in (elasticity_key, earlier_elasticity_key)]
    with translate_errors("reading the measured elasticities"):
        results = [_parse_result(raw) for raw in store.client.mget(keys)]
    return list(zip(results[::2], results[1::2], strict=True))


def _parse_result(raw: bytes | None) -> Elasticity | None:
    """Return a stored result without fields of a newer version, or None if it is missing or unreadable."""
    if raw is None:
        return None
    try:
        return Elasticity(**{name: value for name, value in loads(raw).items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None


_FIELDS = frozenset(field.name for field in fields(Elasticity))
