"""Settle the ready and delayed messages of a cancelled task or batch, without fetching them.

Workers drop a cancelled message when they fetch it. That may be late, and until then the batch would not be
complete: the message may be due in an hour, or its queue be paused or without a worker.
"""

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_declared_queues
from millpond.broker.inspect.effort import Effort
from millpond.broker.keys import WAITING_LISTS, QueueKeys, batch_key
from millpond.broker.scripts import script

#: All waiting messages, in short calls, because the server runs nothing else meanwhile.
FULL_IN_SHORT_CALLS = Effort(page=500)


def cancel_waiting(store: Store, effort: Effort, *, task_id: str = "", batch: str = "") -> int:
    """Settle the ready and delayed messages of a task or batch as cancelled, and return their number.

    The search for a batch ends when it has no pending task.
    """
    id_type, wanted_id = ("batch", batch) if batch else ("id", task_id)
    settled = 0
    for queue in read_declared_queues(store):
        for list_name in WAITING_LISTS:
            if batch and not _has_pending(store, batch):
                return settled
            keys = QueueKeys(queue, store.prefix)
            settled += _cancel_in_list(store, keys, list_name, id_type, wanted_id, effort)
    return settled


def _has_pending(store: Store, batch: str) -> bool:
    """True if a batch has tasks that have not ended."""
    sent, ended = store.client.hmget(batch_key(batch, store.prefix), "sent", "settled")
    return int(sent or 0) > int(ended or 0)


def _cancel_in_list(
    store: Store, keys: QueueKeys, list_name: str, id_type: str, wanted_id: str, effort: Effort
) -> int:
    """Settle the messages of a task or batch in one list as cancelled, and return their number.

    `id_type` is `id` for the id of a task, `batch` for that of a batch.
    """
    index, settled = 0, 0
    for page in effort.page_sizes():
        args = (list_name, index, page, id_type, wanted_id, store.prefix)
        count, settled_now = script("cancel_waiting").run(store.client, keys.for_scripts, args)
        settled += int(settled_now)
        index += int(count) - int(settled_now)  # settled messages have left the list
        if count < page:
            break
    return settled
