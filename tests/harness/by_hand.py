"""Take messages off a queue and settle them, step by step, as a worker process does in its turns."""

from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome

LEASE_MS = 60_000


class Hand:
    """One consumer of a queue."""

    def __init__(self, store: Store, queue: str) -> None:
        self.store = store
        self.in_flight = InFlightMessages()
        self.lease = self.in_flight.lease_on(QueueKeys(queue, store.prefix))

    def turn(self, credit: int = 0) -> None:
        """Settle the ended deliveries and fetch at most `credit` messages."""
        turn = FetchRequest(self.lease, credit, credit, self.lease.take_outcomes())
        reply = fetch_call.call_and_wait(self.store, turn, lease_ms=LEASE_MS)
        fetch_call.accept_messages(self.lease, reply, lambda *_: None)

    def take(self, count: int = 1) -> list[str]:
        """Fetch messages and return the tokens of all that is held."""
        self.turn(count)
        return list(self.lease.in_flight)

    def end(self, outcome: Outcome, count: int = 100) -> None:
        """Settle so many of the messages held."""
        for delivery in list(self.lease.in_flight.values())[:count]:
            self.lease.queue_outcome(delivery, outcome)
        self.turn()

    def lose_lease(self) -> None:
        """Expire the lease, as for a frozen process."""
        self.store.client.zadd(self.lease.keys.consumers, {self.lease.consumer: 1})


def delivery_of(token: str, id: str = "", *, batch: str | None = None, unique_key: str = "") -> Delivery:
    """Return a delivery of a message of which no more is known."""
    own = {"batch": batch, "once": unique_key}
    message = Message({"headers": {"id": id, "millpond": own}, "properties": {}}, "")
    return Delivery(message, token=token)
