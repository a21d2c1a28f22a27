"""Count the tasks that are not settled yet, and find those that wait on a stock broker at the verdict."""

import json
import math

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from tests.scenarios.chaos.kinds import QUEUES

#: The key of the messages that kombu's workers have fetched and not acknowledged.
UNACKED = "unacked"


def left(transport: str, store: Store) -> float:
    """Return the number of messages that are not settled, or infinity if the broker is unreachable."""
    try:
        if transport != "stock":
            depths = [inspect_depth.read_depth(store, queue) for queue in QUEUES]
            return sum(depth.ready + depth.delayed + depth.in_flight for depth in depths)
        return int(sum(map(store.client.llen, _lists())) + store.client.hlen(UNACKED))
    except (BrokerError, RedisError):
        return math.inf


def waiting(store: Store) -> set[str]:
    """Return the ids of the tasks whose messages stock Celery still has: ready, or not acknowledged.

    A task that is neither here nor settled is lost.
    """
    ready = [json.loads(line) for name in _lists() for line in store.client.lrange(name, 0, -1)]
    taken = [json.loads(line)[0] for line in store.client.hvals(UNACKED)]
    return {message["headers"]["id"] for message in ready + taken}


def _lists() -> list[str]:
    return [name for queue in QUEUES for name in QueueKeys(queue).ready]
