"""Know what to do at a full queue for a request that is answered at once."""

import time
from typing import Literal

from millpond.broker import limits
from millpond.broker.connection import Store

#: How long what the broker said of a queue is believed.
KEEP_SECONDS = 5.0

Policy = Literal["reject", "shed"]


class Policies:
    """Answer for the queues of one broker; safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Policy]] = {}

    def of(self, queue: str) -> Policy:
        """Return what a queue does when it is full, where nobody may wait for room or run the task here."""
        until, policy = self._known.get(queue, (0.0, "reject"))
        if time.monotonic() >= until:
            policy = "shed" if limits.read(self._store, queue).overflow == "shed" else "reject"
            self._known[queue] = (time.monotonic() + KEEP_SECONDS, policy)
        return policy
