"""Settle the ready and delayed messages of a cancelled task or batch, without fetching them.

Workers drop cancelled messages when they fetch them. A message that is due in an hour, or that is on a
paused queue or one without a worker, would keep its batch from completing until then.
"""

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import queues
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: The lists that are searched, delayed first: a delayed message moves to a ready list.
LISTS = ("delayed", "1", "2", "3", "4")

#: Messages read in one call: the server runs nothing else meanwhile.
PAGE = 500


def cancel_waiting(store: Store, *, id: str = "", batch: str = "") -> int:
    """Settle the ready and delayed messages of a task or batch as cancelled; return their number."""
    kind, wanted = ("batch", batch) if batch else ("id", id)
    return sum(
        _settle(store, QueueKeys(queue, store.prefix), which, kind, wanted)
        for queue in queues(store)
        for which in LISTS
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
