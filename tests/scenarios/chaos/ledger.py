"""The ledger of a chaos run: what really happened, on a server of its own that no fault touches.

Each handler records its start and its end, each producer the outcome of each send. The verdict compares both
with the broker's records. Times are those of this machine, on which everything runs.
"""

import json
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from millpond.broker.connection import Store, connect

#: The environment variable with the URL of the ledger's server.
URL_VARIABLE = "CHAOS_LEDGER"
_EVENTS = "events"
_PAGE = 10_000

#: The process that imported this first: a worker's main process, also in its prefork children.
OWNER = os.getpid()


@cache
def _store() -> Store:
    return connect(os.environ[URL_VARIABLE], timeout_seconds=60)


def write(*events: dict[str, Any]) -> None:
    """Append events, each with the ids of this process and of its worker, and the time."""
    now = time.time()
    lines = [json.dumps({**event, "pid": os.getpid(), "owner": OWNER, "at": now}) for event in events]
    if lines:
        _store().client.rpush(_EVENTS, *lines)


def started(id: str, *, attempt: int, deliveries: int) -> None:
    """Record the start of a handler. `attempt` is the number of retries before it."""
    write({"event": "started", "id": id, "attempt": attempt, "deliveries": deliveries})


def ended(id: str, how: str, *, attempt: int, after: float = 0.0) -> None:
    """Record the end of a handler. `how` is `ok`, `fail`, or `retry`: it runs again in `after` seconds."""
    write({"event": "ended", "id": id, "how": how, "attempt": attempt, "after": after})


def read(url: str) -> Iterator[dict[str, Any]]:
    """Yield all events in the order in which they were written."""
    client, position = connect(url, timeout_seconds=60).client, 0
    while lines := client.lrange(_EVENTS, position, position + _PAGE - 1):
        yield from map(json.loads, lines)
        position += len(lines)
    client.close()


def advance(tasks: int) -> None:
    """Add to the number of tasks that were offered to the broker."""
    _store().client.incrby("offered", tasks)


def offered(url: str) -> int:
    """Return the number of tasks that were offered to the broker so far."""
    client = connect(url, timeout_seconds=60).client
    try:
        return int(client.get("offered") or 0)
    finally:
        client.close()
