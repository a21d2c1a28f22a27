"""The services of a running handler: it reads whether to stop, reports progress, and sends further tasks.

The handler may run in a prefork child, which shares nothing with the process that has its message, so every
service uses a store of its own. Each reply is kept for a moment, so that a handler may call a service in a
tight loop.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import lru_cache

from millpond.broker.batches.progress import report_progress
from millpond.broker.connection import Store, connect
from millpond.broker.control.state import cancelled_among
from millpond.broker.errors import BrokerError
from millpond.broker.message import Outgoing, compose, new_id
from millpond.broker.publish import Accepted, Duplicate, publish
from millpond.tasks.contract import Contract
from millpond.tasks.middleware import Sending, add_headers
from millpond.tasks.process.spans import traceparent
from millpond.tasks.redaction import redact
from millpond.tasks.settings import settings
from millpond.tasks.wire_fields import wire_fields
from millpond.worker import middleware

#: The age at which known cancellations are read again, and the least time between progress reports.
FRESH_SECONDS = 0.25
PROGRESS_SECONDS = 0.5

#: Cancellations are read for this long after the last call of a handler: most call again, or have ended.
ASKED_SECONDS = 5.0

#: How long a task that a handler sent under a name of its own is not sent again.
SENT_ONCE_MS = 7 * 24 * 3600 * 1000


def shared_store() -> Store:
    """Return the store that the handlers of this process share."""
    return _connect_store(os.getpid())


@lru_cache(maxsize=1)
def _connect_store(_process: int) -> Store:
    """Return the store of a process. A forked child makes one of its own."""
    here = settings()
    return connect(here.broker_url or "", **here.broker_options)


class Cancellations:
    """Which of the running tasks and their batches are cancelled, no older than a moment.

    All names that handlers read lately are read together, so old cancellations cost nothing.
    """

    def __init__(
        self, read: Callable[[Collection[str]], frozenset[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        #: The time at which each name was last read by a handler.
        self._asked: dict[str, float] = {}
        self._cancelled: frozenset[str] = frozenset()
        self._good_until = 0.0

    def any_of(self, *names: str) -> bool:
        """True if one of these is cancelled."""
        with self._lock:
            now = self._clock()
            is_new = not all(name in self._asked for name in names)
            self._asked.update(dict.fromkeys(names, now))
            if is_new or now >= self._good_until:
                self._asked = {name: at for name, at in self._asked.items() if at > now - ASKED_SECONDS}
                # The last reply holds: a handler must not fail because the broker is unreachable.
                with suppress(BrokerError):
                    self._cancelled = self._read(self._asked)
                self._good_until = self._clock() + FRESH_SECONDS
            return not self._cancelled.isdisjoint(names)


@lru_cache(maxsize=1)
def cancellations(_process: int) -> Cancellations:
    """Return the cancellations that the handlers of a process share. `_process` is its id."""
    return Cancellations(lambda names: cancelled_among(shared_store(), names))


class ProgressReporter:
    """Pass the progress of one task on, at a bounded rate. The last report is always passed on."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._silent_until = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        """Report the progress of the task, at most once in `PROGRESS_SECONDS` and at its end."""
        now = time.monotonic()
        if now < self._silent_until and done != total:
            return
        self._silent_until = now + PROGRESS_SECONDS
        with suppress(BrokerError):  # progress is a courtesy
            report_progress(shared_store(), self._task_id, done, total)


class Outbox:
    """Sends tasks from inside a task. tasks/email/outbox.py has its contract."""

    def __init__(self, task_id: str, now_ms: Callable[[], int]) -> None:
        self._task_id = task_id
        self._now_ms = now_ms

    def send_many(self, jobs: Iterable[tuple[str, Contract]]) -> int:
        """Send jobs by their ids until one is refused because the queue is full.

        Return the number accepted.
        """
        outcomes = publish(
            shared_store(), [self._compose_message(job, id=id, claim=id) for id, job in jobs], policy="reject"
        )
        taken = 0
        for outcome in outcomes:
            if not isinstance(outcome, Accepted | Duplicate):
                break
            taken += 1
        return taken

    def send_continuation(self, job: Contract, *, after_seconds: float) -> None:
        """Send a continuation of this task, beyond the bound of its queue if need be."""
        due_ms = self._now_ms() + int(after_seconds * 1000) if after_seconds else None
        publish(shared_store(), [self._compose_message(job, due_ms=due_ms)], policy="exempt")

    def _compose_message(
        self, job: Contract, *, id: str | None = None, claim: str | None = None, due_ms: int | None = None
    ) -> Outgoing:
        """Return the message of a further task, with what middleware adds."""
        fields = wire_fields(job)
        sending = Sending(job, id or new_id(), job.queue, traceparent=traceparent())
        return compose(
            job.kind,
            fields,
            queue=job.queue,
            sent_at_ms=self._now_ms(),
            id=sending.id,
            shown=redact(type(job), fields),
            due_ms=due_ms,
            claim=claim,
            claim_ms=SENT_ONCE_MS,
            parent_id=self._task_id,
            traceparent=sending.traceparent,
            headers=add_headers(middleware.on_sending, sending).headers,
        )
