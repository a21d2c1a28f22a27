"""Wait until every worker process has heard of what changed, or learn which has not."""

import time

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import queues
from millpond.broker.keys import QueueKeys, known_epochs_key

#: The longest that a living process may take to hear; a dead one is waited for until its lease runs out.
ACK_TIMEOUT_SECONDS = 30.0
_LOOK_SECONDS = 0.01


def wait_for_acknowledgements(store: Store, epoch: int, timeout_seconds: float) -> tuple[str, ...]:
    """Wait until every process that holds messages knows an epoch; return those that do not by then."""
    deadline = time.monotonic() + timeout_seconds
    while (unacknowledged := _unacknowledged(store, epoch)) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return tuple(sorted(unacknowledged))


def process_of(consumer: str) -> str:
    """Return the name of the process that a consumer is of."""
    return consumer.rpartition(".")[0]


def _unacknowledged(store: Store, epoch: int) -> set[str]:
    """Name the processes that hold messages under a lease and know only an earlier epoch."""
    found = store.client.hgetall(known_epochs_key(store.prefix))
    known = {name.decode(): int(value) for name, value in found.items()}
    return {process for process in _holding(store) if known.get(process, 0) < epoch}


def _holding(store: Store) -> set[str]:
    seconds, _micros = store.client.time()
    found = set()
    for queue in queues(store):
        keys = QueueKeys(queue, store.prefix)
        for consumer in store.client.zrangebyscore(keys.consumers, seconds * 1000, "+inf"):
            if store.client.hlen(keys.in_flight(consumer.decode())):
                found.add(process_of(consumer.decode()))
    return found
