"""The services of a running handler: whether it was cancelled, its progress reports, sending further tasks.

The handler may run in a prefork child, which shares no connection with the process that fetched its message.
So the services have a store of their own in each process. A handler may call them in a tight loop: replies
are reused for a moment, and reports of progress are left out.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import takewhile

from millpond.broker.batches.progress import report_progress
from millpond.broker.connection import Store, connect
from millpond.broker.control.state import find_cancelled
from millpond.broker.errors import BrokerError
from millpond.broker.message import new_id
from millpond.broker.outgoing import Outgoing, compose
from millpond.broker.publish import Accepted, Duplicate, publish
from millpond.tasks.contract import Contract
from millpond.tasks.middleware import Sending, add_headers
from millpond.tasks.process.one_per_process import one_per_process
from millpond.tasks.process.spans import traceparent
from millpond.tasks.redaction import redact
from millpond.tasks.settings import Settings, settings
from millpond.tasks.wire_fields import wire_fields
from millpond.worker import middleware

#: Cancellations that were read are used for this long.
FRESH_SECONDS = 0.25

#: The least time between two progress reports of a task.
PROGRESS_SECONDS = 0.5

#: A task's cancellation is read together with others' for this long after its handler last asked.
KEEP_READING_SECONDS = 5.0

#: The time in which a task that a handler sent with its own id is not sent again (7 days).
CLAIM_MS = 7 * 24 * 3600 * 1000


def shared_store() -> Store:
    """Return the store that the handlers of this process share."""
    return _connect_store(settings())


@one_per_process
def _connect_store(configured: Settings) -> Store:
    return connect(configured.broker_url or "", **configured.broker_options)


class Cancellations:
    """Reads which of the running tasks and their batches are cancelled, at most every `FRESH_SECONDS`.

    A name is the id of a task, or the key of a batch's record. `read` returns the cancelled ones of some
    names. It is called with all names that handlers asked for lately.
    """

    def __init__(
        self, read: Callable[[Collection[str]], frozenset[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        #: The time at which a handler last asked for each name.
        self._asked_at: dict[str, float] = {}
        self._cancelled: frozenset[str] = frozenset()
        self._fresh_until = 0.0

    def includes_any(self, *names: str) -> bool:
        """True if a task or a batch of these names is cancelled, by the last reading that succeeded."""
        with self._lock:
            now = self._clock()
            is_new = not all(name in self._asked_at for name in names)
            self._asked_at.update(dict.fromkeys(names, now))
            if is_new or now >= self._fresh_until:
                oldest = now - KEEP_READING_SECONDS
                self._asked_at = {name: at for name, at in self._asked_at.items() if at > oldest}
                with suppress(BrokerError):  # a handler must not fail because the broker is unreachable
                    self._cancelled = self._read(self._asked_at)
                self._fresh_until = self._clock() + FRESH_SECONDS
            return not self._cancelled.isdisjoint(names)


@one_per_process
def shared_cancellations() -> Cancellations:
    """Return the cancellations that the handlers of this process share."""
    return Cancellations(lambda names: find_cancelled(shared_store(), names))


class ProgressReporter:
    """Sends the progress of one task to the broker, at a bounded rate."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._next_at = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        """Send the progress, at most once in `PROGRESS_SECONDS`, but always at the end (`done` is `total`).

        If the broker is unreachable, the report is lost and the task goes on.
        """
        now = time.monotonic()
        if now < self._next_at and done != total:
            return
        self._next_at = now + PROGRESS_SECONDS
        with suppress(BrokerError):
            report_progress(shared_store(), self._task_id, done, total)


class Outbox:
    """Sends tasks from a handler. Implements the protocol of tasks/email/outbox.py."""

    def __init__(self, task_id: str, now_ms: Callable[[], int]) -> None:
        self._task_id = task_id
        self._now_ms = now_ms

    def send_many(self, jobs: Iterable[tuple[str, Contract]]) -> int:
        """Send jobs, each with its id, until one is refused because the queue is full.

        Return the number accepted. A job that was sent before counts as accepted, and is not sent again.
        """
        messages = [self._compose_message(job, own_id=id) for id, job in jobs]
        outcomes = publish(shared_store(), messages, policy="reject")
        return sum(1 for _ in takewhile(lambda outcome: isinstance(outcome, Accepted | Duplicate), outcomes))

    def send_continuation(self, job: Contract, *, after_seconds: float) -> None:
        """Send the continuation of this task, even if its queue is full."""
        due_ms = self._now_ms() + int(after_seconds * 1000) if after_seconds else None
        publish(shared_store(), [self._compose_message(job, due_ms=due_ms)], policy="exempt")

    def _compose_message(
        self, job: Contract, *, own_id: str | None = None, due_ms: int | None = None
    ) -> Outgoing:
        """Return the message of a further task, with the headers that middleware adds.

        Of the messages with one `own_id` only the first is accepted. `due_ms` delays the message until then.
        """
        fields = wire_fields(job)
        sending = Sending(job, own_id or new_id(), job.queue, traceparent=traceparent())
        return compose(
            job.kind,
            fields,
            queue=job.queue,
            sent_at_ms=self._now_ms(),
            id=sending.id,
            shown=redact(type(job), fields),
            due_ms=due_ms,
            claim=own_id,
            claim_ms=CLAIM_MS,
            parent_id=self._task_id,
            traceparent=sending.traceparent,
            headers=add_headers(middleware.on_sending, sending).headers,
        )
