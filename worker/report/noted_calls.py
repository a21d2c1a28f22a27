"""The items of a run's calls: as many as the handler notes, or the length of its only list.

A run appends its calls. The heartbeat takes them and adds them up. A run without a list appends nothing.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from millpond.broker.stats.calls import add_items

#: Kind, peer, items, seconds. Appended by slots.
_NOTED: deque[tuple[str, str, int, float]] = deque(maxlen=100_000)

#: The peer that each slot calls by its own word, by the ident of its thread.
CALLING: dict[int, str] = {}

#: Whether anything is noted: the sampler of slots switches it on, and takes the notes.
switch = {"on": False}


def note_run(kind: str, kwargs: Mapping[str, Any], seconds: float) -> None:
    """Note the length of the only list among the arguments of a run."""
    items = None
    for value in kwargs.values():
        if type(value) is list:
            if items is not None:
                return
            items = value
    if items is not None:
        _NOTED.append((kind, "", len(items), seconds))


@contextmanager
def note_call(kind: str, peer: str, items: int) -> Iterator[None]:
    """Record one call of a peer while the block runs: the handler's name for it, the items, the seconds."""
    thread, began = threading.get_ident(), time.monotonic()
    before, CALLING[thread] = CALLING.get(thread), peer
    try:
        yield
    finally:
        if before is None:
            CALLING.pop(thread, None)
        else:
            CALLING[thread] = before
        if switch["on"]:
            _NOTED.append((kind, peer, items, time.monotonic() - began))


def pop_noted_calls() -> Counter[str]:
    """Remove the noted calls, and return their sums as fields of a window."""
    fields: Counter[str] = Counter()
    while _NOTED:
        add_items(fields, *_NOTED.popleft())
    return fields
