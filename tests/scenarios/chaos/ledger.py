"""Write down the true events of a run, on a server of its own that no fault touches.

Every body notes its start and its end, every producer the answer to each of its sends. The verdict compares
the two with the broker's records. Times are this machine's: all of a run is on one machine.
"""

import json
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from millpond.broker.connection import Store, connect

#: Where the processes of a run find the ledger.
URL_VARIABLE = "CHAOS_LEDGER"
_EVENTS = "events"
_PAGE = 10_000

#: The process that imported this first: a worker's main process, also in its prefork children.
OWNER = os.getpid()


@cache
def _store() -> Store:
    return connect(os.environ[URL_VARIABLE], timeout_seconds=60)


def write(*events: dict[str, Any]) -> None:
    """Append events, each with the process and the time."""
    now = time.time()
    lines = [json.dumps({**event, "pid": os.getpid(), "owner": OWNER, "at": now}) for event in events]
    if lines:
        _store().client.rpush(_EVENTS, *lines)


def started(id: str, *, attempt: int, deliveries: int) -> None:
    """Record that a handler begins; `attempt` counts the retries before it."""
    write({"event": "started", "id": id, "attempt": attempt, "deliveries": deliveries})


def ended(id: str, how: str, *, attempt: int, after: float = 0.0) -> None:
    """Record how a handler ended: `ok`, `fail`, or `retry`, to be run again in `after` seconds."""
    write({"event": "ended", "id": id, "how": how, "attempt": attempt, "after": after})


def read(url: str) -> Iterator[dict[str, Any]]:
    """Yield all events in the order in which they were written."""
    client, position = connect(url, timeout_seconds=60).client, 0
    while lines := client.lrange(_EVENTS, position, position + _PAGE - 1):
        yield from map(json.loads, lines)
        position += len(lines)
    client.close()


def advance(tasks: int) -> None:
    """Record that so many more tasks were offered to the broker."""
    _store().client.incrby("offered", tasks)


def offered(url: str) -> int:
    """Return how many tasks were offered so far."""
    client = connect(url, timeout_seconds=60).client
    try:
        return int(client.get("offered") or 0)
    finally:
        client.close()
