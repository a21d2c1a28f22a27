"""Drop all that waits on a queue, as `celery purge` asks; what is held goes on."""

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: Messages that one call drops: nothing else runs on the server meanwhile.
PAGE = 500


def purge(store: Store, queue: str) -> int:
    """Drop what waits, also for its time; return how much. Each counts as cancelled in its batch."""
    dropped = 0
    with translate_errors(f"purging queue {queue!r}"):
        for which in ("delayed", "1", "2", "3", "4"):
            dropped += _purge(store, queue, which)
    return dropped


def _purge(store: Store, queue: str, which: str) -> int:
    keys, dropped = QueueKeys(queue, store.prefix), 0
    # What producers send meanwhile is not what was to be dropped, and must not keep this going for ever.
    left = (
        store.client.zcard(keys.delayed)
        if which == "delayed"
        else store.client.llen(keys.all[int(which) - 1])
    )
    while dropped < left:
        page = int(
            script("purge").run(store.client, keys.all, (which, min(PAGE, left - dropped), store.prefix))
        )
        dropped += page
        if not page:
            break
    return dropped
