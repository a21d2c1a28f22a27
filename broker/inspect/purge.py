"""Purge a queue, as `celery purge` does: delete its ready and delayed messages. Messages in flight go on."""

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: Messages deleted in one call: the server runs nothing else meanwhile.
PAGE = 500


def purge_queue(store: Store, queue: str) -> int:
    """Delete the ready and delayed messages, and return their number.

    Each counts as cancelled in its batch.
    """
    dropped = 0
    with translate_errors(f"purging queue {queue!r}"):
        for list_name in ("delayed", "1", "2", "3", "4"):
            dropped += _purge_list(store, queue, list_name)
    return dropped


def _purge_list(store: Store, queue: str, list_name: str) -> int:
    """Delete the messages that one list had when this began, and return their number."""
    keys, dropped = QueueKeys(queue, store.prefix), 0
    # Messages that are sent meanwhile are not purged, so this ends although producers go on.
    left = (
        store.client.zcard(keys.delayed)
        if list_name == "delayed"
        else store.client.llen(keys.all[int(list_name) - 1])
    )
    while dropped < left:
        page = int(
            script("purge").run(store.client, keys.all, (list_name, min(PAGE, left - dropped), store.prefix))
        )
        dropped += page
        if not page:
            break
    return dropped
