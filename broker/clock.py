"""Read the server's clock: the one that all hosts agree on."""

import time

from millpond.broker.connection import Store, clear_errors

#: Goes on while the machine is suspended, where there is such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_seconds() -> float:
    """Return seconds of a clock that nobody sets and that a paused process finds ahead."""
    return time.clock_gettime(_CLOCK)


def now_ms(store: Store) -> int:
    """Return the server's time in ms since the epoch."""
    with clear_errors("reading the broker's clock"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000
