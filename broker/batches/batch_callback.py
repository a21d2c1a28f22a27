"""Let a task follow a batch: composed when the batch is opened, sent by the script that completes it.

So it is sent exactly once, whoever is killed, and with the counts as they were in that very step. The message
lies in the batch's record with placeholders for what is not known yet; `_queue.lua` fills them in.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millpond.broker.keys import QueueKeys, step_of
from millpond.broker.message import Outgoing

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary

#: Stands in the message for the time at which it is sent, and for the counts.
UNKNOWN = -1

#: What the script writes over the placeholder of the counts, in this order.
_FILLED_IN = ("sent", "succeeded", "failed", "cancelled", "expired", "opened_at_ms", "closed_at_ms")
_OR_NEVER = ("completed_at_ms", "cancelled_at_ms")


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


def completed_batch(told: Mapping[str, Any] | None) -> "Summary | None":
    """Return the summary of the batch that a message follows, as it was when the batch was completed.

    None where the message follows none.
    """
    from millpond.broker.batches.record import Summary

    if not told or not isinstance(told.get("counts"), list):
        return None
    filled: dict[str, Any] = dict(zip((*_FILLED_IN, *_OR_NEVER), told["counts"], strict=False))
    never = {name: filled[name] or None for name in _OR_NEVER}
    return Summary(id=told["batch"], description=told["description"], **{**filled, **never})
