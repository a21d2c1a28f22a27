"""Fill a batch, close it, and read what became of it.

A batch is a record in Redis; this is a handle to it. The producer closes it, for only the producer knows that
nothing more will come, and a batch is complete once it is closed and everything in it is settled.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
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
from millpond.producer.send_outcomes import Refused, Sent, Tally


class Sends(Protocol):
    """The part of a `Client` that its batches use."""

    store: Store

    def send(self, what: Sendable, *args: Any, **options: Any) -> Sent: ...
    def send_many(self, items: Iterable[Sendable | Message], *args: Any, **options: Any) -> Tally: ...
    def send_each(
        self, items: Iterable[Sendable | Message], *args: Any, **options: Any
    ) -> Iterator[Sent | Refused]: ...


class Batch:
    """Handle one batch; made by `Client.batch` and `Client.open_batch`, on any host, as often as needed."""

    def __init__(self, client: Sends, id: str) -> None:
        self._client = client
        self.id = id
        self._filled_by: int | None = None

    def __enter__(self) -> Self:
        self._filled_by = threading.get_ident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the batch, after an error too: what was sent into it can then complete."""
        self._filled_by = None
        try:
            self.close()
        except BrokerError as away:
            if error is None:
                raise
            error.add_note(f"batch {self.id} is still open, for closing it failed: {away}")

    def submit(self, what: Sendable, **options: Any) -> Sent:
        """Send one task into the batch; the options are those of `Client.send`. Raises `BatchClosed`."""
        return self._client.send(what, batch=self, **options)

    def submit_many(self, items: Iterable[Sendable | Message], **options: Any) -> Tally:
        """Send everything that an iterable yields into the batch.

        The options are those of `Client.send_many`.
        """
        return self._client.send_many(items, batch=self, **options)

    def submit_each(self, items: Iterable[Sendable | Message], **options: Any) -> Iterator[Sent | Refused]:
        """Send as the result is iterated, and yield what became of each item; see `Client.send_each`."""
        return self._client.send_each(items, batch=self, **options)

    def close(self) -> Summary:
        """Say that nothing more will come. Closing again changes nothing."""
        return record.close_batch(self._client.store, self.id)

    def cancel(self, *, terminate: bool = False) -> Cancellation:
        """Close the batch and let nothing of it start that has not; what runs goes on, and is told.

        With `terminate` what runs on a `prefork` pool is ended, and counts as cancelled. Returns when every
        worker that holds any of it has confirmed: from then on nothing of it starts. What waits is settled by
        then.
        """
        return control_cancel.cancel_batch(self._client.store, self.id, terminate=terminate)

    def summary(self) -> Summary:
        """Count what was sent into the batch and how it ended, now."""
        return record.summary(self._client.store, self.id)

    def results(
        self, *, after: str = results.START, patience: timedelta = results.PATIENCE
    ) -> Iterator[Result]:
        """Yield results in order of completion, behind the position `after` (of the last one seen; "0": all).

        Ends when the batch is complete. Called by the thread that still fills the batch in its `with` block,
        where nobody else could close it, it ends when all that was sent so far is settled. A broker that is
        away is tried again for `patience`; then `BrokerAway`.
        """
        settled_is_enough = self._filled_by == threading.get_ident()
        return results.stream(
            self._client.store,
            self.id,
            after=after,
            ended=_is_settled if settled_is_enough else _is_complete,
            patience=patience,
        )

    def failures(self) -> Iterator[Result]:
        """Yield what failed or expired so far, each with its reason, without waiting for more."""
        for result in results.stream(
            self._client.store, self.id, ended=lambda _: True, patience=results.PATIENCE
        ):
            if result.state in (TaskState.FAILED, TaskState.EXPIRED):
                yield result

    def wait(self, timeout: timedelta | None = None) -> Summary:
        """Wait until the batch is complete, or for `timeout`; the summary's `complete` says which."""
        ends = None if timeout is None else time.monotonic() + timeout.total_seconds()
        pause = 0.01
        while not (summary := self.summary()).complete and (ends is None or time.monotonic() < ends):
            left = pause if ends is None else max(0.0, ends - time.monotonic())
            time.sleep(min(pause, left))
            pause = min(0.25, pause * 1.5)
        return summary


def _is_settled(summary: Summary) -> bool:
    return summary.complete or summary.pending == 0


def _is_complete(summary: Summary) -> bool:
    return summary.complete
