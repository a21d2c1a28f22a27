"""Know the server's time without asking for each message.

A sample of the server's clock is carried on by this machine's monotonic clock, so a step of the local wall
clock moves no due time; it is taken anew once a minute.
"""

import time

from broker.clock import now_ms
from broker.connection import Store

KEEP_SECONDS = 60.0

#: Goes on while the machine is suspended, where there is such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _elapsed_seconds() -> float:
    return time.clock_gettime(_CLOCK)


class ServerClock:
    """Tell the server's time; safe to share, for a sample is replaced as a whole."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sample: tuple[float, int] | None = None

    def now_ms(self) -> int:
        """Return the server's time in ms since the epoch, right to the length of a round trip."""
        elapsed = _elapsed_seconds()
        sample = self._sample
        if sample is None or elapsed - sample[0] > KEEP_SECONDS:
            server_ms = now_ms(self._store)
            after = _elapsed_seconds()
            sample = self._sample = ((elapsed + after) / 2, server_ms)
            elapsed = after
        return sample[1] + int((elapsed - sample[0]) * 1000)
