"""Why a pool is slow: a state with its evidence, a name and a number, from what was measured of the pool.

`facts.py` gathers what Redis knows, `rules.py` and `causes.py` decide in a fixed order, `numbers.py` says how
many slots, and what they would bring. `workers` is said only where an elasticity was measured that proves it.
"""

from millpond.broker.connection import Store
from millpond.monitor.diagnosis.facts import PoolFacts, collect
from millpond.monitor.diagnosis.rules import judge
from millpond.monitor.diagnosis.verdict import State, Verdict
from millpond.monitor.snapshot import Overview

__all__ = ["PoolFacts", "State", "Verdict", "collect", "diagnose", "judge"]


def diagnose(store: Store, overview: Overview) -> list[Verdict]:
    """Return the verdict on each pool, in the order of the overview."""
    return [judge(facts) for facts in collect(store, overview)]
