"""Read the results of a batch in order of completion, through lost connections."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerAway

#: How long a read waits in the server for a result before the summary is read again.
WAIT_MS = 500
#: The most results of one read, each of at most 64 KiB. They bound the memory of a reader.
PAGE_SIZE = 200
#: How long a reader tries to reach a broker that is away.
RECONNECT_TIMEOUT = timedelta(seconds=30)
#: The pause between two tries to reach it.
RECONNECT_PAUSE_SECONDS = 0.2

#: The position before the first result.
START = "0"


def read_results(
    store: Store,
    batch: str,
    *,
    after: str = START,
    has_ended: Callable[[Summary], bool],
    reconnect_timeout: timedelta = RECONNECT_TIMEOUT,
) -> Iterator[Result]:
    """Yield the results after a position, in order of completion, until `has_ended` is True for the summary.

    Each result is yielded once, also over a reconnect. Raises `UnknownBatch`, and `BrokerAway` if the broker
    stays away for `reconnect_timeout`.
    """
    away_since: float | None = None
    page_was_full = False
    while True:
        try:
            # After a full page there may be more results, whatever the summary says.
            is_over = not page_was_full and has_ended(record.read_summary(store, batch))
            wait_ms = 0 if is_over or page_was_full else WAIT_MS
            page = record.read_results(store, batch, after=after, wait_ms=wait_ms, limit=PAGE_SIZE)
        except BrokerAway:
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since > reconnect_timeout.total_seconds():
                raise
            time.sleep(RECONNECT_PAUSE_SECONDS)
            continue
        away_since, page_was_full = None, len(page) == PAGE_SIZE
        for result in page:
            yield result
            after = result.position
        # A result that the summary counts can be read already: an empty page after the summary is the end.
        if is_over and not page:
            return
