"""Settle what waits of something cancelled, without handing it out.

Workers drop what they fetch of it anyway; but what is due in an hour, or waits on a queue that is paused or
that nobody serves, would keep its batch from completing until somebody fetched it.
"""

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import queues
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: Where messages wait: the delayed ones first, for they move on to the ready lists.
WAITING = ("delayed", "1", "2", "3", "4")

#: Messages that one call looks at: nothing else runs on the server meanwhile.
PAGE = 500


def cancel_waiting(store: Store, *, id: str = "", batch: str = "") -> int:
    """Settle as cancelled what waits of a task or of a batch, on any queue; return how many there were."""
    kind, wanted = ("batch", batch) if batch else ("id", id)
    return sum(
        _settle(store, QueueKeys(queue, store.prefix), which, kind, wanted)
        for queue in queues(store)
        for which in WAITING
    )


def _settle(store: Store, keys: QueueKeys, which: str, kind: str, wanted: str) -> int:
    index, settled = 0, 0
    while True:
        args = (which, index, PAGE, kind, wanted, store.prefix)
        seen, gone = script("cancel_waiting").run(store.client, keys.all, args)
        settled += int(gone)
        index += int(seen) - int(gone)
        if seen < PAGE:
            return settled
