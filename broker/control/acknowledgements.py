"""Wait until every worker process has acknowledged a control epoch (broker/control/state.py)."""

import time
from collections import Counter
from collections.abc import Iterable

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_declared_queues
from millpond.broker.keys import QueueKeys, known_epochs_key
from millpond.broker.server import server_time_ms

#: The longest wait. A living process acknowledges sooner, and the lease of a dead one expires sooner.
ACK_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.01


def wait_for_acknowledgements(store: Store, epoch: int, timeout_seconds: float) -> tuple[str, ...]:
    """Wait until every process with messages in flight has acknowledged an epoch, or until the time-out.

    Return the names of the processes that have not acknowledged it.
    """
    deadline = time.monotonic() + timeout_seconds
    while (unacknowledged := _processes_behind(store, epoch)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return tuple(sorted(unacknowledged))


def process_of(consumer: str) -> str:
    """Return the name of the process to which a consumer belongs."""
    return consumer.rpartition(".")[0]


def _processes_behind(store: Store, epoch: int) -> set[str]:
    """Return the processes with messages in flight that have not acknowledged this epoch or a later one."""
    fields = store.client.hgetall(known_epochs_key(store.prefix))
    acknowledged = {name.decode(): int(value) for name, value in fields.items()}
    counts = count_in_flight(store, read_declared_queues(store))
    return {name for name, count in counts.items() if count and acknowledged.get(name, 0) < epoch}


def count_in_flight(store: Store, queues: Iterable[str]) -> dict[str, int]:
    """Return the messages in flight of each process with a lease on one of the queues, by its name.

    Messages of a killed process are not counted: they become ready again when its lease has expired.
    """
    now_ms, counts = server_time_ms(store), Counter[str]()
    for queue in queues:
        keys = QueueKeys(queue, store.prefix)
        for consumer in store.client.zrangebyscore(keys.consumers, now_ms, "+inf"):
            counts[process_of(consumer.decode())] += store.client.hlen(keys.in_flight(consumer.decode()))
    return counts
