"""Know who opened a batch: its token alone, or one for every kind, may feed, see, close and cancel it."""

from collections import OrderedDict

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.producer.gateway.problems import explained, refusal
from millpond.producer.gateway.thread_pools import Threads
from millpond.producer.gateway.tokens import Holder
from millpond.tasks.errors import BrokerError

#: Batches whose owner is remembered; it never changes.
REMEMBERED = 10_000


class Owners:
    """Answer for the batches of one broker; belongs to one event loop."""

    def __init__(self, store: Store, threads: Threads) -> None:
        self._store = store
        self._threads = threads
        self._known: OrderedDict[str, str | None] = OrderedDict()

    async def must_own(self, asks: Holder, batch: str) -> None:
        """Refuse a batch that another token opened, or none did. Raises `Refusal`."""
        if asks.may_all:
            return
        if batch not in self._known:
            try:
                summary = await self._threads.look(lambda: record.summary(self._store, batch))
            except BrokerError as error:
                raise explained(error) from None
            self._known[batch] = summary.owner
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if self._known[batch] != asks.name:
            text = f"{asks.name} did not open this batch: ask with the token that did, or one for every kind"
            raise refusal(403, "forbidden_batch", text)
