"""Settle the ready and delayed messages of a cancelled task or batch, without fetching them.

Workers drop cancelled messages when they fetch them. A message that is due in an hour, or that is on a
paused queue or one without a worker, would keep its batch from completing until then.
"""

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import declared_queues
from millpond.broker.inspect.effort import Effort
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.scripts import script

#: The lists that are searched, delayed first: a delayed message moves to a ready list.
LISTS = ("delayed", "1", "2", "3", "4")

#: Everything that waits, in calls that are short: the server runs nothing else meanwhile.
SWEEP = Effort(page=500)


def cancel_waiting(store: Store, effort: Effort = SWEEP, *, id: str = "", batch: str = "") -> int:
    """Settle the ready and delayed messages of a task or batch as cancelled, and return their number.

    The search ends when the batch has no task left.
    """
    id_type, value = ("batch", batch) if batch else ("id", id)
    settled = 0
    for queue in declared_queues(store):
        for list_name in LISTS:
            if batch and not _has_pending(store, batch):
                return settled
            keys = QueueKeys(queue, store.prefix)
            settled += _cancel_in_list(store, keys, list_name, id_type, value, effort)
    return settled


def _has_pending(store: Store, batch: str) -> bool:
    """True if a batch has tasks that have not ended."""
    sent, ended = store.client.hmget(batch_key(batch, store.prefix), "sent", "settled")
    return int(sent or 0) > int(ended or 0)


def _cancel_in_list(
    store: Store, keys: QueueKeys, list_name: str, id_type: str, id: str, effort: Effort
) -> int:
    """Settle as cancelled the messages of one list that belong to a task or batch, and return their number.

    `id_type` is `id` for the id of a task, `batch` for that of a batch.
    """
    index, settled = 0, 0
    for page in effort.page_sizes():
        args = (list_name, index, page, id_type, id, store.prefix)
        read, gone = script("cancel_waiting").run(store.client, keys.all, args)
        settled += int(gone)
        index += int(read) - int(gone)
        if read < page:
            break
    return settled
