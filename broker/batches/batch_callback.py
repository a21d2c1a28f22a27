"""Let a task follow a batch: composed when the batch is opened, sent by the script that completes it.

So it is sent exactly once, whoever is killed, and with the counts as they were in that very step. The message
lies in the batch's record with placeholders for what is not known yet; `_queue.lua` fills them in, and
`record.completed_batch` reads them.
"""

from typing import Any

from millpond.broker.keys import QueueKeys, step_of
from millpond.broker.message import Outgoing

#: Stands in the message for the time at which it is sent, and for the counts.
UNKNOWN = -1


def header(batch: str, description: str) -> dict[str, Any]:
    """Return what a message that follows a batch says of it, before the batch is complete."""
    return {"batch": batch, "description": description, "counts": UNKNOWN}


def record_fields(then: Outgoing, prefix: str) -> dict[str, str]:
    """Return what the record of a batch must hold for its script to send a message."""
    keys = QueueKeys(then.queue, prefix)
    return {
        "then": then.payload,
        "then_id": then.id,
        "then_key": keys.ready[step_of(then.priority)],
        "then_wake": keys.wake,
        "then_counters": keys.counters,
    }
