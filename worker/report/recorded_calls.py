"""Record the calls of handlers with their numbers of items: as marked, or the length of a run's only list.

A run appends an entry for each call that its handler marks, and one for the only list among its arguments.
The heartbeat takes the entries and adds them up.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from millpond.broker.stats.calls import add_counted_call

#: The recorded calls: kind, peer, number of items, seconds. Slots append.
_CALLS: deque[tuple[str, str, int, float]] = deque(maxlen=100_000)

#: The peer that a handler says it is calling now, by the ident of its slot's thread.
CALLED_PEERS: dict[int, str] = {}

#: Calls are recorded if "on" is true. The sampler of slots, which takes them, switches it on.
RECORDING = {"on": False}


def record_run(kind: str, kwargs: Mapping[str, Any], seconds: float) -> None:
    """Record a run as one call, with the length of the only list among its arguments as the number of items.

    A run without a list, or with several, is not recorded.
    """
    items = None
    for value in kwargs.values():
        if type(value) is list:
            if items is not None:
                return
            items = value
    if items is not None:
        _CALLS.append((kind, "", len(items), seconds))


@contextmanager
def record_call(kind: str, peer: str, items: int) -> Iterator[None]:
    """Record the block as one call of `peer`, with its number of items and its seconds.

    While the block runs, the sampler of slots knows the peer by this name.
    """
    thread, began = threading.get_ident(), time.monotonic()
    outer_peer, CALLED_PEERS[thread] = CALLED_PEERS.get(thread), peer
    try:
        yield
    finally:
        if outer_peer is None:
            CALLED_PEERS.pop(thread, None)
        else:
            CALLED_PEERS[thread] = outer_peer
        if RECORDING["on"]:
            _CALLS.append((kind, peer, items, time.monotonic() - began))


def take_recorded_calls() -> Counter[str]:
    """Remove the recorded calls, and return their sums as fields of a window."""
    fields: Counter[str] = Counter()
    while _CALLS:
        add_counted_call(fields, *_CALLS.popleft())
    return fields
