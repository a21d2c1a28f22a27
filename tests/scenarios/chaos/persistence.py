"""Repeat calls that failed because the broker was unreachable."""

import time
from collections.abc import Callable
from typing import TypeVar

from millpond.tasks.errors import BrokerError, UnknownBatch

T = TypeVar("T")


def persistently(call: Callable[[], T], *, patience_seconds: float = 60.0) -> T:
    """Repeat a call until the broker replies, for at most `patience_seconds`. It may be carried out twice."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return call()
        except UnknownBatch:  # the broker has forgotten it, and will not remember
            raise
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
