"""Read the results of a batch as they come, through lost connections."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerAway

#: A read waits this long at the server before it looks whether the batch is complete.
WAIT_MS = 500
#: Results read at once, each of at most 64 KiB: the memory of a reader, however many there are.
PAGE = 200
#: How long a reader goes on trying to reach a broker that is away.
PATIENCE = timedelta(seconds=30)

START = "0"


def stream(
    store: Store, batch: str, *, after: str = START, ended: Callable[[Summary], bool], patience: timedelta
) -> Iterator[Result]:
    """Yield the results behind a position, in order of completion, until the summary says that it is over.

    Each is yielded once: the position moves with what was yielded, also over a reconnect. Raises
    `UnknownBatch`, and `BrokerAway` when the broker stays away for `patience`.
    """
    away_since: float | None = None
    more = False
    while True:
        try:
            # While pages are full there is more to read, whatever the summary says.
            over = not more and ended(record.summary(store, batch))
            wait_ms = 0 if over or more else WAIT_MS
            found = record.results(store, batch, after=after, wait_ms=wait_ms, limit=PAGE)
        except BrokerAway:
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since > patience.total_seconds():
                raise
            time.sleep(0.2)
            continue
        away_since, more = None, len(found) == PAGE
        for result in found:
            yield result
            after = result.position
        # What had settled before the summary was read is in the stream: an empty read after it is the end.
        if over and not found:
            return
