"""Read the results of a batch in order of completion, through lost connections."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerAway

#: How long a read waits at the server before the summary is read again.
WAIT_MS = 500
#: Results of one read, each of at most 64 KiB: they bound the memory of a reader.
PAGE = 200
#: How long a reader tries to reach the broker.
RECONNECT_TIMEOUT = timedelta(seconds=30)

#: The position before the first result.
START = "0"


def read_results(
    store: Store,
    batch: str,
    *,
    after: str = START,
    ended: Callable[[Summary], bool],
    reconnect_timeout: timedelta = RECONNECT_TIMEOUT,
) -> Iterator[Result]:
    """Yield the results behind a position, in order of completion, until `ended` is True of the summary.

    Each result is yielded once, also over a reconnect. Raises `UnknownBatch`, and `BrokerAway` if the broker
    stays away for `reconnect_timeout`.
    """
    away_since: float | None = None
    more = False
    while True:
        try:
            # A full page means that more results wait, even if the summary differs.
            over = not more and ended(record.summary(store, batch))
            wait_ms = 0 if over or more else WAIT_MS
            page = record.results(store, batch, after=after, wait_ms=wait_ms, limit=PAGE)
        except BrokerAway:
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since > reconnect_timeout.total_seconds():
                raise
            time.sleep(0.2)
            continue
        away_since, more = None, len(page) == PAGE
        for result in page:
            yield result
            after = result.position
        # Results that the summary counts are in the stream: an empty read after it is the end.
        if over and not page:
            return
