"""The lease of a caller that runs a message itself because the queue is full (`caller_runs`).

The publish script gives the caller one message under a lease, as if it were a consumer. If the caller is
killed, the lease expires and the message goes to the pool. The outcome is settled as a worker's is: batch,
unique key, dead letter.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from redis.exceptions import RedisError

from millpond.broker.connection import Store, translate_errors
from millpond.broker.consume import fetch_call
from millpond.broker.consume.queue_lease import Hold, Turn
from millpond.broker.control import state
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome
from millpond.broker.publish import Caller
from millpond.broker.scripts import script

LEASE_MS = 15_000


class CallersHold:
    """Hold one message at a time of one queue."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._process = f"caller@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._hold = Hold(QueueKeys(queue, store.prefix), f"{self._process}.0", registered=True)
        self.caller = Caller(consumer=self._hold.consumer, lease_ms=LEASE_MS)

    @contextmanager
    def holding(self, delivery: Delivery) -> Iterator[bool]:
        """Keep the lease for as long as the block runs; yield True if the task was cancelled before."""
        self._hold.take(delivery)
        done = threading.Event()
        keeper = threading.Thread(target=self._renew, args=(done,), name="millpond-caller", daemon=True)
        keeper.start()
        try:
            yield self._is_cancelled(delivery.message)
        finally:
            done.set()
            keeper.join()

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle the message and let it go; it is settled once, whoever else may have it by now."""
        hold = self._hold
        hold.settle(delivery, outcome)
        with translate_errors("settling"):
            fetch_call.call(self._store, Turn(hold, 0, 0, hold.settlements(1)), lease_ms=LEASE_MS)
            script("end_lease").run(self._store.client, hold.keys.all, (hold.consumer,))
        state.forget(self._store, self._process)

    def _is_cancelled(self, message: Message) -> bool:
        # What a caller holds is as good as started, so nobody has to wait until it has heard of more.
        state.acknowledge(self._store, self._process, state.ALL_FUTURE)
        known = state.read(self._store)
        return (
            message.id in known.cancelled or batch_key(message.batch, self._store.prefix) in known.cancelled
        )

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(LEASE_MS / 3000):
            with suppress(RedisError, OSError):
                words = (self._hold.consumer, LEASE_MS)
                script("renew_lease").run(self._store.client, self._hold.keys.all, words)
