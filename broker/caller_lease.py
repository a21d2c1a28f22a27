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
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.control import state
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.message import Message
from millpond.broker.outcomes import Outcome
from millpond.broker.publish import Caller
from millpond.broker.scripts import script

LEASE_MS = 15_000


class CallerLease:
    """The lease of a caller on one queue, for one message at a time."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._process = f"caller@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        # A consumer is named "process.number". The publish script registers this one with each message
        # that it gives to it.
        self._lease = QueueLease(QueueKeys(queue, store.prefix), f"{self._process}.0", registered=True)
        self.caller = Caller(consumer=self._lease.consumer, lease_ms=LEASE_MS)

    @contextmanager
    def renew_while_running(self, delivery: Delivery) -> Iterator[bool]:
        """Renew the lease while the block runs. Yields True if the task was cancelled before it started."""
        self._lease.add_delivery(delivery)
        done = threading.Event()
        renewer = threading.Thread(
            target=self._renew_until_done, args=(done,), name="millpond-caller", daemon=True
        )
        renewer.start()
        try:
            yield self._check_cancelled(delivery.message)
        finally:
            done.set()
            renewer.join()

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle the message and end the lease. If the lease has expired, the outcome changes nothing."""
        lease = self._lease
        lease.queue_outcome(delivery, outcome)
        with translate_errors("settling"):
            request = FetchRequest(lease, 0, 0, lease.take_outcomes())
            fetch_call.call_and_wait(self._store, request, lease_ms=LEASE_MS)
            script("end_lease").run(self._store.client, lease.keys.for_scripts, (lease.consumer,))
        state.forget_process(self._store, self._process)

    def _check_cancelled(self, message: Message) -> bool:
        """Acknowledge all future cancellations, then return whether the task or its batch is cancelled.

        The caller's task counts as started from now on, so no cancellation waits for this process.
        """
        state.acknowledge_epoch(self._store, self._process, state.ALL_FUTURE)
        names = (message.id, batch_key(message.batch, self._store.prefix))
        return bool(state.find_cancelled(self._store, names))

    def _renew_until_done(self, done: threading.Event) -> None:
        """Renew the lease, three times within its term, until `done` is set. Runs in a thread of its own."""
        while not done.wait(LEASE_MS / 3000):
            with suppress(RedisError, OSError):
                args = (self._lease.consumer, LEASE_MS)
                script("renew_lease").run(self._store.client, self._lease.keys.for_scripts, args)
