"""The client of an application: send tasks and batches, find, follow and cancel them.

A `Client` may be shared by threads and used on both sides of a fork. Its only state is connections and
caches. It imports neither Celery nor a handler, unless the settings name a Celery application.
"""

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Self, TypedDict, get_args
from uuid import uuid4

from millpond.broker.batches import progress, record
from millpond.broker.batches.progress import Progress
from millpond.broker.batches.record import Summary
from millpond.broker.connection import connect
from millpond.broker.control import cancel as control_cancel
from millpond.broker.control.cancel import Cancellation
from millpond.broker.inspect import task_lookup
from millpond.broker.inspect.task_lookup import TaskLocation
from millpond.broker.server import server_time_ms
from millpond.producer.batch import Batch
from millpond.producer.message import Call, Message, Sendable, callback_message
from millpond.producer.queue_cache import QueueCache
from millpond.producer.send_arguments import BatchSend, takes_fields_of
from millpond.producer.send_outcomes import Refused, Sent, Tally
from millpond.producer.sender import Sender
from millpond.producer.server_clock import ServerClock
from millpond.tasks.application_broker import client_settings
from millpond.tasks.contract import Contract
from millpond.tasks.durations import Duration, to_timedelta
from millpond.tasks.middleware import load_middleware
from millpond.tasks.pools import Overflow
from millpond.tasks.process.configured_broker import require_broker_url
from millpond.tasks.settings import Settings
from millpond.tasks.settings import settings as read_settings
from millpond.tasks.tracing import Tracing, hooks_by_tracing

_POLICIES = get_args(Overflow)


@dataclass(frozen=True, slots=True)
class ClientSend(BatchSend):
    """A message, how it is sent, and the open batch to send it into."""

    _: KW_ONLY
    batch: Batch | str | None = None


class Client:
    """A client of one broker: that of `url`, or the one in the settings.

    Without `settings`, they are read from the environment and millpond.toml. If these name a Celery
    application (`app`) and no broker, the application is imported and its broker is used. Raises
    `SettingsError` if no broker is given. It connects at the first call.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        configured = settings or read_settings()
        if url is None:
            configured = client_settings(configured)
        address = url or require_broker_url(configured)
        tracing = Tracing(configured.traces_endpoint, service="millpond-client")
        self.store = connect(address, **configured.broker_options, copies=configured.send_copies)
        #: The limits of the queues. The gateway reads their overflow policies here.
        self.queues = QueueCache(self.store, configured.table)
        self._sender = Sender(
            self.store,
            ServerClock(self.store),
            self.queues,
            configured.kinds,
            configured.app,
            hooks_by_tracing(tracing, load_middleware(configured.middleware)),
        )

    @takes_fields_of(ClientSend)
    def send(self, sending: ClientSend) -> Sent:
        """Send one task: a contract, the name of a kind and its fields, a `Call`, or a Celery signature.

        `SendOptions`, `BatchSend` and `ClientSend` explain the options. A task of a Celery application is
        sent as the application would, with its routes, serializers and `link`; under its `task_always_eager`
        it is refused with a `TypeError`, and does not run. An option given here overrides
        the signature's. Returns a `Sent` with the task's id. Raises `QueueFull`, `DeadlineExceeded`,
        `BatchClosed`, `BadContract`, `UnknownQueue`, `HandlerMissing`, `BrokerAway`. After `BrokerAway` the
        task may have been accepted; after any other error it was not.
        """
        return self.send_message(sending, sending.batch)

    def send_message(self, sending: BatchSend, batch: "Batch | str | None" = None) -> Sent:
        """Send one task with its arguments in one object. See `send`."""
        outcome = self._sender.send_one(
            sending, **_convert_arguments(sending.overflow, sending.timeout, batch)
        )
        if isinstance(outcome, Refused):
            raise outcome.error
        return outcome

    def send_many(
        self,
        items: Iterable[Sendable | Message],
        *,
        queue: str | None = None,
        priority: int = 0,
        overflow: Overflow | None = None,
        timeout: Duration | None = None,
        batch: "Batch | str | None" = None,
    ) -> Tally:
        """Send every task of an iterable, in constant memory, and return their number by outcome.

        Stops at the first refusal and raises it. `send_each` goes on and yields it. `queue` and `priority`
        apply to items that are not a `Message`. Under `block`, `timeout` bounds the time without an accepted
        task.
        """
        accepted = duplicates = ran_here = 0
        messages = self._as_messages(items, queue, priority)
        for outcome in self.send_each(messages, overflow=overflow, timeout=timeout, batch=batch):
            if isinstance(outcome, Refused):
                outcome.error.add_note(f"{accepted} messages were accepted before this one")
                raise outcome.error
            accepted += outcome.duplicate_of is None
            duplicates += outcome.duplicate_of is not None
            ran_here += outcome.ran_here is not None
        return Tally(accepted, duplicates, ran_here)

    def send_each(
        self,
        items: Iterable[Sendable | Message],
        *,
        overflow: Overflow | None = None,
        timeout: Duration | None = None,
        batch: "Batch | str | None" = None,
    ) -> Iterator[Sent | Refused]:
        """Send items while the result is iterated, and yield the outcome of each, in order.

        A refusal is yielded, not raised. An item that is not valid raises as in `send`.
        """
        return self._sender.stream(self._as_messages(items), **_convert_arguments(overflow, timeout, batch))

    def batch(
        self, description: str = "", *, then: "Sendable | Message | None" = None, owner: str | None = None
    ) -> Batch:
        """Open a batch. A `with` block closes it at its end.

        `then`, the batch callback, is sent exactly once when the batch is complete, however its tasks ended.
        Its handler finds the counts in `context.batch_summary`. `owner` names a token of the HTTP gateway
        that may use the batch too (a token for every kind may use all). Raises `BadContract`, `UnknownQueue`.
        """
        id = str(uuid4())
        callback = (
            None if then is None else self._sender.compose_callback(callback_message(then), id, description)
        )
        record.open_batch(self.store, id=id, description=description, then=callback, owner=owner)
        return Batch(self, id)

    def open_batch(self, id: str) -> Batch:
        """Return an existing batch by its id, in any process. Raises `UnknownBatch`."""
        record.read_summary(self.store, id)
        return Batch(self, id)

    def cancel(self, id: str, *, terminate: bool = False) -> Cancellation:
        """Cancel a task by its id. Return when every worker that may have it in flight has acknowledged.

        The task does not start any more. If it runs, it is asked to stop; with `terminate`, it is killed if
        its pool is `prefork`. `found` of the result is its location, or None if the task has ended or never
        existed.
        """
        return control_cancel.cancel_task(self.store, id, terminate=terminate)

    def now_ms(self) -> int:
        """Return the broker's time in ms since the epoch, by which all times in a summary are measured."""
        return server_time_ms(self.store)

    def find(self, id: str) -> TaskLocation | None:
        """Return the location of a task. Return None if it has ended or never existed."""
        return task_lookup.find_task(self.store, id)

    def progress(self, id: str) -> Progress | None:
        """Return the progress that a task reported last, None if it reported none in the last hour."""
        return progress.read_progress(self.store, id)

    def batches(self, limit: int = 100, *, still_open: bool = False) -> Iterator[Summary]:
        """Yield the summaries of the batches opened last, the newest first.

        With `still_open`, only batches that are not closed: `last_sent_at_ms` is when their producer last
        sent a task.
        """
        return record.read_batches(self.store, limit=limit, still_open=still_open)

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _as_messages(
        items: Iterable[Sendable | Message], queue: str | None = None, priority: int = 0
    ) -> Iterator[Message]:
        """Yield each item as a `Message`. Raises `TypeError` for one item in place of an iterable."""
        # A contract is iterable too: it yields its fields.
        if isinstance(items, Contract | Message | Call | dict | str):
            raise TypeError(f"{items!r:.80} is one item: put it into a list, or call send for one task")
        return (
            item if isinstance(item, Message) else Message(item, queue=queue, priority=priority)
            for item in items
        )


class _SendArguments(TypedDict):
    """The arguments that the messages of one call share."""

    overflow: Overflow | None
    timeout_seconds: float | None
    batch: str | None


def _convert_arguments(
    overflow: Overflow | None, timeout: Duration | None, batch: Batch | str | None
) -> _SendArguments:
    """Return the arguments that the messages of one call share. Raises `ValueError`, `TypeError`."""
    if overflow is not None and overflow not in _POLICIES:
        raise ValueError(f"overflow is {', '.join(_POLICIES)}, not {overflow!r}")
    return {
        "overflow": overflow,
        "timeout_seconds": None if timeout is None else to_timedelta(timeout, "timeout").total_seconds(),
        "batch": batch.id if isinstance(batch, Batch) else batch,
    }
