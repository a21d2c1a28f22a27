"""A consumer that a test moves step by step: it fetches messages of a queue and settles them."""

from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome

#: The term of its lease, long enough for any test.
LEASE_MS = 60_000


class ManualConsumer:
    """One consumer of a queue, without slots: it runs no task."""

    def __init__(self, store: Store, queue: str) -> None:
        self.store = store
        self.in_flight = InFlightMessages()
        self.lease = self.in_flight.lease_on(QueueKeys(queue, store.prefix))

    def settle_and_fetch(self, credit: int = 0) -> None:
        """Send the queued outcomes, and fetch at most `credit` messages."""
        request = FetchRequest(self.lease, credit, credit, self.lease.take_outcomes())
        reply = fetch_call.call_and_wait(self.store, request, lease_ms=LEASE_MS)
        fetch_call.accept_messages(self.lease, reply, lambda *_: None)

    def fetch(self, count: int = 1) -> list[str]:
        """Fetch at most `count` messages, and return the tokens of all that are in flight here."""
        self.settle_and_fetch(count)
        return list(self.lease.in_flight)

    def settle(self, outcome: Outcome, count: int = 100) -> None:
        """Settle the oldest `count` messages in flight here by an outcome."""
        for delivery in list(self.lease.in_flight.values())[:count]:
            self.lease.queue_outcome(delivery, outcome)
        self.settle_and_fetch()

    def lose_lease(self) -> None:
        """Set the lease as expired in Redis, as if this process had been frozen."""
        self.store.client.zadd(self.lease.keys.consumers, {self.lease.consumer: 1})


def delivery_of(token: str, id: str = "", *, batch: str | None = None, unique_key: str = "") -> Delivery:
    """Return a delivery whose message has these fields and no others."""
    own = {"batch": batch, "once": unique_key}
    message = Message({"headers": {"id": id, "millpond": own}, "properties": {}}, "")
    return Delivery(message, token=token)
