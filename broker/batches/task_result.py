"""The result of a single tracked task: a batch of one, which is not listed among the batches.

Its record is opened before the task is sent, and closed afterwards. The record of a task that was not
accepted is deleted.
"""

from millpond.broker.batches import record as batches_record
from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import batch_key
from millpond.broker.server import server_time_ms

#: The record is kept for this long after its task has ended.
KEEP_MS = 24 * 3600 * 1000


def record_id(task_id: str) -> str:
    """Return the id of a task's record, which is the id of a batch."""
    return f"task:{task_id}"


def open_record(store: Store, task_id: str, kind: str) -> bool:
    """Open the record of a task that will be sent. Return False if there is one already."""
    key = batch_key(record_id(task_id), store.prefix)
    now_ms = server_time_ms(store)
    with store.pipeline(f"tracking task {task_id}", atomic=True) as pipe:
        pipe.hsetnx(key, "opened_at", now_ms).hsetnx(key, "keep_ms", KEEP_MS).hsetnx(key, "description", kind)
        pipe.pexpire(key, batches_record.FORGOTTEN_MS)
        is_new, *_ = pipe.execute()
    return bool(is_new)


def close_record(store: Store, task_id: str) -> None:
    """Close the record of a task that was sent, or delete the record of a task that was refused."""
    key = batch_key(record_id(task_id), store.prefix)
    if batches_record.close_batch(store, record_id(task_id)).sent == 0:
        with translate_errors(f"deleting the record of task {task_id}"):
            store.client.delete(key)
