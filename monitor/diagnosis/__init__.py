"""Why a pool is slow: a state with its evidence, a name and a number, from measurements of the pool.

`facts.py` gathers the facts from Redis. `rules.py` has the rules in a fixed order, with those of `causes.py`,
`batching.py`, `growth.py` and `unknown.py`. The first rule that applies makes the diagnosis
(`shared_fields.py`). `numbers.py` computes the number of slots and their effect. The state `workers` is given
only if a measured elasticity proves it.
"""

from millpond.broker.connection import Store
from millpond.monitor.diagnosis.diagnosis import Diagnosis, State
from millpond.monitor.diagnosis.facts import PoolFacts, read_pool_facts
from millpond.monitor.diagnosis.rules import diagnose
from millpond.monitor.snapshot import Snapshot

__all__ = ["Diagnosis", "PoolFacts", "State", "diagnose", "diagnose_all", "read_pool_facts"]


def diagnose_all(store: Store, snapshot: Snapshot) -> list[Diagnosis]:
    """Return the diagnosis of each pool, in the order of the snapshot. Raises `BrokerAway`."""
    return [diagnose(facts) for facts in read_pool_facts(store, snapshot)]
