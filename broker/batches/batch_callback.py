"""The batch callback (`then=`): composed when a batch is opened, sent by the script that completes it.

So it is sent exactly once, even if processes are killed, and with the counts at that moment. The record of
the batch keeps the message with placeholders. `_queue.lua` replaces them, and `record.parse_completed_batch`
parses the result.
"""

from typing import Any

from millpond.broker.keys import QueueKeys, step_of
from millpond.broker.outgoing import Outgoing

#: The placeholder for the time of sending and for the counts.
UNKNOWN = -1


def callback_header(batch: str, description: str) -> dict[str, Any]:
    """Return the header `after` of a batch callback, with a placeholder for the counts."""
    return {"batch": batch, "description": description, "counts": UNKNOWN}


def callback_fields(then: Outgoing, prefix: str) -> dict[str, str]:
    """Return the fields of a batch's record from which the script sends the callback of the batch."""
    keys = QueueKeys(then.queue, prefix)
    return {
        "then": then.payload,
        "then_id": then.id,
        "then_key": keys.ready[step_of(then.priority)],
        "then_wake": keys.wake,
        "then_counters": keys.counters,
    }
