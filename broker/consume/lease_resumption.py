"""Resume a lease after a lost connection, and log the messages that the server has forgotten.

The server may have forgotten the last moments: it is a replica that lagged, or was restored from a copy. So
its messages in flight are compared with those of this process. Messages that only the server has in flight
return to the queue. Messages that only this process has in flight are not started, and their outcome changes
nothing. A token is never used twice (scripts/_queue.lua), so an outcome of an old delivery settles no new
one.
"""

import logging

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.header_times import format_eta
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)


def resume_lease(store: Store, in_flight: InFlightMessages, lease: QueueLease, *, lease_ms: int) -> None:
    """Resume a lease under a new name of its consumer, or begin a new one if it has expired.

    This is necessary even if no call ever got a reply, because the server may have carried out the first one.
    The log shows how many messages were lost, forgotten, or returned to the queue.
    """
    tokens = [*lease.in_flight, *(delivery.token for delivery, _ in lease.outcomes)]
    new_name = in_flight.new_consumer()
    args = (lease.consumer, lease.term_ms(lease_ms), new_name, lease.last_sequence, *tokens)
    is_in_force, returned, forgotten, until_ms, *missing = script("resume_lease").run(
        store.client, lease.keys.for_scripts, args
    )
    lost = 0
    if is_in_force:
        in_flight.rename_consumer(lease, new_name)
        lost = lease.mark_deliveries_lost(token.decode() for token in missing)
    elif lease.registered:
        lost = len(lease.in_flight)
        in_flight.replace_lost_lease(lease)
    if forgotten:
        logger.warning(
            "queue %s: the broker has forgotten everything after %s, at least %d deliveries: it was restored "
            "from a copy, or is a replica that lagged. Tasks that ended since then run again, and tasks sent "
            "since then may be lost",
            lease.queue,
            format_eta(until_ms) if until_ms else "its start",
            forgotten,
        )
    if lost:
        logger.warning(
            "queue %s: %d messages in flight were lost to this process. Those that the broker still has are "
            "delivered again, and their outcomes here change nothing",
            lease.queue,
            lost,
        )
    if returned:
        logger.info("queue %s: %d messages that are not in flight here were released", lease.queue, returned)
