"""The server's time without a round trip for each message.

The server's clock is sampled once a minute. The time since the sample is that of this machine's monotonic
clock, so a change of the local wall clock moves no due time. While the time is used, one request a second
checks that the server's clock was not set to another time.
"""

from millpond.broker.connection import Store
from millpond.broker.server import elapsed_seconds, server_time_ms

SAMPLE_SECONDS = 60.0
CHECK_SECONDS = 1.0

#: The server's clock was set if its reply is more than this before the expected time, or more than this and
#: the time of the request after it.
STEP_MS = 5

#: A sample that took at most `QUICK_SECONDS` is used at once, otherwise the quickest of `MOST_SAMPLES`.
QUICK_SECONDS = 0.001
MOST_SAMPLES = 4


class ServerClock:
    """The clock of one server. Threads may share it, since a sample is replaced as a whole."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: The local monotonic time in seconds, and the server's time in ms that was read then.
        self._sample: tuple[float, int] | None = None
        #: The local monotonic time in seconds at which the server's clock was last read.
        self._checked_at = 0.0

    def now_ms(self) -> int:
        """Return the server's time in ms since the epoch. Raises `BrokerAway`.

        It may be ahead by the round trip of a sample, which counts as passed: so no delayed task becomes
        ready early because this host was busy. Otherwise it is wrong by at most `STEP_MS` and the round trip
        of a check, except in the second after the server's clock was set.
        """
        elapsed = elapsed_seconds()
        sample = self._sample
        if (
            sample is None
            or elapsed - sample[0] > SAMPLE_SECONDS
            or (elapsed - self._checked_at > CHECK_SECONDS and self._has_stepped(sample, elapsed))
        ):
            sample = self._sample = self._take_sample()
            self._checked_at = elapsed_seconds()
        return sample[1] + int((elapsed_seconds() - sample[0]) * 1000)

    def _has_stepped(self, sample: tuple[float, int], elapsed: float) -> bool:
        """True if the server's clock was set to another time since the sample. Raises `BrokerAway`."""
        self._checked_at = elapsed
        server_ms = server_time_ms(self._store)
        expected = sample[1] + (elapsed - sample[0]) * 1000
        took_ms = (elapsed_seconds() - elapsed) * 1000
        return not -STEP_MS <= server_ms - expected <= took_ms + STEP_MS

    def _take_sample(self) -> tuple[float, int]:
        """Return the local time at which the quickest of a few requests was sent, and the server's time.

        Raises `BrokerAway`.
        """
        quickest, sample = float("inf"), (0.0, 0)
        for _ in range(MOST_SAMPLES):
            sent_at = elapsed_seconds()
            server_ms = server_time_ms(self._store)
            took = elapsed_seconds() - sent_at
            if took < quickest:
                quickest, sample = took, (sent_at, server_ms)
            if quickest <= QUICK_SECONDS:
                break
        return sample
