"""Why a pool is slow: a state with its evidence, a name and a number, from measurements of the pool.

`facts.py` gathers the facts from Redis, `rules.py` and `causes.py` decide in a fixed order, `numbers.py`
computes the number of slots and their effect. `workers` is the answer only if a measured elasticity proves
it.
"""

from millpond.broker.connection import Store
from millpond.monitor.diagnosis.diagnosis import Diagnosis, State
from millpond.monitor.diagnosis.facts import PoolFacts, collect
from millpond.monitor.diagnosis.rules import diagnose
from millpond.monitor.snapshot import Snapshot

__all__ = ["Diagnosis", "PoolFacts", "State", "collect", "diagnose", "diagnose_all"]


def diagnose_all(store: Store, snapshot: Snapshot) -> list[Diagnosis]:
    """Return the diagnosis of each pool, in the order of the snapshot."""
    return [diagnose(facts) for facts in collect(store, snapshot)]
