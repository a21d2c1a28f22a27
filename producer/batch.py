"""A handle to a batch: send tasks into it, close or cancel it, read its results.

A batch is a record in Redis. The producer closes it, because only the producer knows that it has sent
its last task. A closed batch is complete once every task in it is settled.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

from millpond.broker.batches import record
from millpond.broker.batches.record import Result, Summary
from millpond.broker.connection import Store
from millpond.broker.control import cancel as control_cancel
from millpond.broker.control.cancel import Cancellation
from millpond.broker.errors import BrokerError
from millpond.broker.task_state import TaskState
from millpond.producer import results
from millpond.producer.message import Message, Sendable
from millpond.producer.send_arguments import BatchSend, takes_fields_of
from millpond.producer.send_outcomes import Refused, Sent, Tally
from millpond.tasks.durations import Duration, to_timedelta

logger = logging.getLogger(__name__)


class _BatchClient(Protocol):
    """The part of a `Client` that its batches use: `client.py` imports this file."""

    store: Store

    def send_message(self, sending: BatchSend, batch: "Batch") -> Sent: ...
    def send_many(self, items: Iterable[Sendable | Message], *args: Any, **options: Any) -> Tally: ...
    def send_each(
        self, items: Iterable[Sendable | Message], *args: Any, **options: Any
    ) -> Iterator[Sent | Refused]: ...


class Batch:
    """A handle to a batch. `Client.batch` and `Client.open_batch` return one, any number for each batch."""

    def __init__(self, client: _BatchClient, id: str) -> None:
        self._client = client
        self.id = id
        #: The thread that is in the `with` block of this object, by its ident. None outside of the block.
        self._open_in_thread: int | None = None
        #: The number of tasks that this object sent into the batch, and whether it closed the batch. A broker
        #: that is restored from a copy forgets both.
        self._accepted, self._closed = 0, False

    def __enter__(self) -> Self:
        self._open_in_thread = threading.get_ident()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Close the batch, after an error too, so that it can complete."""
        self._open_in_thread = None
        try:
            self.close()
        except BrokerError as failed:
            if error is None:
                raise
            error.add_note(f"batch {self.id} is still open, since closing it failed: {failed}")

    @takes_fields_of(BatchSend)
    def send(self, sending: BatchSend) -> Sent:
        """Send one task into the batch. Options and errors are as for `Client.send`."""
        sent = self._client.send_message(sending, self)
        self._accepted += sent.duplicate_of is None
        return sent

    def send_many(self, items: Iterable[Sendable | Message], **options: Any) -> Tally:
        """Send every task of an iterable into the batch, as `Client.send_many` does."""
        tally = self._client.send_many(items, batch=self, **options)
        self._accepted += tally.accepted
        return tally

    def send_each(self, items: Iterable[Sendable | Message], **options: Any) -> Iterator[Sent | Refused]:
        """Send items into the batch while the result is iterated, and yield the outcome of each.

        See `Client.send_each`.
        """
        return map(self._count_accepted, self._client.send_each(items, batch=self, **options))

    def close(self) -> Summary:
        """Close the batch and return its summary. It accepts no further task. A second call changes nothing.

        Logs a warning if the broker has forgotten tasks that this object sent into the batch.
        """
        summary = record.close_batch(self._client.store, self.id)
        if summary.sent < self._accepted and not self._closed:
            logger.warning(
                "batch %s: the broker has %d of the %d tasks that were sent into it: it was restored from a "
                "copy, or is a replica that lagged. Send the others again",
                self.id,
                summary.sent,
                self._accepted,
            )
        self._closed = True
        return summary

    def cancel(self, *, terminate: bool = False) -> Cancellation:
        """Close the batch and cancel its tasks. Ask those that run to stop.

        With `terminate`, tasks that run on a `prefork` pool are killed and count as cancelled. Returns when
        every worker with tasks of the batch in flight has acknowledged. No task starts after that, and the
        tasks that were ready or delayed are settled.
        """
        return control_cancel.cancel_batch(self._client.store, self.id, terminate=terminate)

    def summary(self) -> Summary:
        """Return the number of tasks sent into the batch, and how they ended so far."""
        return record.read_summary(self._client.store, self.id)

    def results(
        self, *, after: str = results.START, reconnect_timeout: Duration = results.RECONNECT_TIMEOUT
    ) -> Iterator[Result]:
        """Yield results in order of completion, until the batch is complete.

        `after` is the position of the last result seen ("0": none). In the batch's own `with` block, which
        has not closed it yet, the iterator ends when all tasks sent so far are settled. Raises `BrokerAway`
        when the broker stays away for `reconnect_timeout`.
        """
        is_still_open = self._open_in_thread == threading.get_ident()
        return results.read_results(
            self._client.store,
            self.id,
            after=after,
            has_ended=_is_settled if is_still_open else self._is_complete,
            reconnect_timeout=to_timedelta(reconnect_timeout, "reconnect_timeout"),
        )

    def failures(self) -> Iterator[Result]:
        """Yield the results of tasks that failed or expired so far, without waiting for more."""
        for result in results.read_results(self._client.store, self.id, has_ended=lambda _: True):
            if result.state in (TaskState.FAILED, TaskState.EXPIRED):
                yield result

    def wait(self, timeout: Duration | None = None) -> Summary:
        """Wait until the batch is complete, at most for `timeout`, and return its summary."""
        ends_at = (
            None if timeout is None else time.monotonic() + to_timedelta(timeout, "timeout").total_seconds()
        )
        pause = 0.01
        while not self._is_complete(summary := self.summary()):
            seconds_left = pause if ends_at is None else ends_at - time.monotonic()
            if seconds_left <= 0:
                break
            time.sleep(min(pause, seconds_left))
            pause = min(0.25, pause * 1.5)
        return summary

    def _count_accepted(self, outcome: Sent | Refused) -> Sent | Refused:
        """Count a task if it was accepted into the batch, and return its outcome."""
        self._accepted += isinstance(outcome, Sent) and outcome.duplicate_of is None
        return outcome

    def _is_complete(self, summary: Summary) -> bool:
        """True if the batch is complete. Closes it again if the broker has forgotten that it was closed."""
        if self._closed and summary.closed_at_ms is None:
            self.close()
        return summary.complete


def _is_settled(summary: Summary) -> bool:
    """True if every task that was sent into the batch so far has ended."""
    return summary.complete or summary.pending == 0
