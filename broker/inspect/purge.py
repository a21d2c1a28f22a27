"""Purge a queue, as `celery purge` does: delete its ready and delayed messages. Messages in flight go on."""

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import WAITING_LISTS, QueueKeys
from millpond.broker.scripts import script

#: Messages deleted in one call: the server runs nothing else meanwhile.
PAGE = 500


def purge_queue(store: Store, queue: str) -> int:
    """Delete the ready and delayed messages of a queue, and return their number.

    Each counts as cancelled in its batch.
    """
    with translate_errors(f"purging queue {queue!r}"):
        return sum(_purge_list(store, queue, list_name) for list_name in WAITING_LISTS)


def _purge_list(store: Store, queue: str, list_name: str) -> int:
    """Delete as many messages of a list as it has now, and return their number.

    So this ends although producers go on sending.
    """
    keys, deleted = QueueKeys(queue, store.prefix), 0
    if list_name == "delayed":
        length = store.client.zcard(keys.delayed)
    else:
        length = store.client.llen(keys.ready[int(list_name) - 1])
    while deleted < length:
        args = (list_name, min(PAGE, length - deleted), store.prefix)
        page = int(script("purge").run(store.client, keys.for_scripts, args))
        deleted += page
        if not page:
            break
    return deleted
