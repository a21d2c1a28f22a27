"""Know the server's time without asking for each message.

A sample of the server's clock is carried on by this machine's monotonic clock, so a step of the local wall
clock moves no due time; it is taken anew once a minute.
"""

from millpond.broker.connection import Store
from millpond.broker.server import elapsed_seconds, now_ms

KEEP_SECONDS = 60.0

#: An answer that took no longer is good enough; else the server is asked again, so many times at most.
QUICK_SECONDS = 0.001
MOST_ASKED = 4


class ServerClock:
    """Tell the server's time; safe to share, for a sample is replaced as a whole."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sample: tuple[float, int] | None = None

    def now_ms(self) -> int:
        """Return the server's time in ms since the epoch, or later by a round trip at most, never before it.

        So what is to be delayed is not early, however busy this host was as it asked.
        """
        elapsed = elapsed_seconds()
        sample = self._sample
        if sample is None or elapsed - sample[0] > KEEP_SECONDS:
            sample = self._sample = self._ask()
            elapsed = elapsed_seconds()
        return sample[1] + int((elapsed - sample[0]) * 1000)

    def _ask(self) -> tuple[float, int]:
        """Return when the server was asked and what it said, by the quickest of a few answers."""
        quickest, sample = float("inf"), (0.0, 0)
        for _ in range(MOST_ASKED):
            asked = elapsed_seconds()
            server_ms = now_ms(self._store)
            took = elapsed_seconds() - asked
            if took < quickest:
                quickest, sample = took, (asked, server_ms)
            if quickest <= QUICK_SECONDS:
                break
        return sample
