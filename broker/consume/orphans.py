"""Find messages in flight whose consumer is not listed, as after somebody deleted the list of consumers.

Expired leases are found in that list, so these messages would stay in flight for ever. A process searches for
their hashes when it begins to consume a queue, and when it finds that its own lease is not listed.
"""

import logging
import re

from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)

#: Keys that the server scans in one step of the search.
_PAGE = 1_000


def lease_orphaned_messages(store: Store, keys: QueueKeys, *, lease_ms: int) -> int:
    """Give each unlisted consumer with messages in flight a lease, and return the number of these messages.

    A living consumer renews the lease. The messages of a dead one become ready when the lease expires.
    """
    count, prefix = 0, keys.in_flight("")
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    for key in store.client.scan_iter(pattern, count=_PAGE):
        args = (key[len(prefix.encode()) :], lease_ms)
        count += int(script("adopt").run(store.client, keys.for_scripts, args))
    if count:
        logger.warning(
            "queue %s: %d messages in flight had no listed consumer, as after %s was deleted: they go back "
            "to the queue unless their consumer renews its lease",
            keys.queue,
            count,
            keys.consumers,
        )
    return count
