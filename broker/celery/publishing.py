"""Publish as kombu's producers ask: one message at a time, or the messages of a `Producer.batch()` together.

An error is one that kombu retries as Celery's publish policy says, and then Celery's own `OperationalError`:
an unreachable broker is retried; a full queue is not, unless `full_queue_timeout` lets the sender wait.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import redis as stock
from kombu.utils.json import dumps

from millpond.broker import limits, publish
from millpond.broker.admission import leave_line, new_ticket, wait_for_room
from millpond.broker.celery.queue_commands import QueueCommands
from millpond.broker.errors import BrokerAway, BrokerError, QueueFull
from millpond.broker.header_times import parse_eta_ms
from millpond.broker.message import OWN, Outgoing

#: A waiting sender checks so often that it still has its place in line.
CHECK_SECONDS = 15.0

#: A longer message is compared with the queue's limit before it is sent.
LARGE_BYTES = limits.Limits.message_bytes

#: A message and the policy under which it is sent.
Sending = tuple[publish.Policy, Outgoing]


class SendingFailed(BrokerAway, OperationalError):
    """The broker could not be reached. kombu tries again as the publish policy says."""


class SendingRefused(BrokerError, OperationalError):
    """The broker refused the message."""


class SendingToFullQueue(QueueFull, OperationalError):
    """The queue is full, and its overflow policy refuses messages."""


class PublishBatch(stock.PublishBatch):
    """The messages of one `Producer.batch()`, sent in one round trip."""

    def __init__(self, channel: Any, max_size: int) -> None:
        super().__init__(channel, max_size)
        self._gathered: list[Sending] = []

    def publish(self, message: Any, **kwargs: Any) -> Any:
        """Route one message. The batch is sent once it is large enough, or when it ends."""
        result = super().publish(message, **kwargs)
        if len(self._gathered) >= self.max_size:
            self.flush()
        return result

    def gather(self, sending: Sending) -> None:
        """Add a message for a queue of tasks."""
        self._gathered.append(sending)

    def flush(self) -> None:
        """Send the gathered messages."""
        super().flush()
        gathered, self._gathered = self._gathered, []
        if gathered:
            self.channel.send(gathered)

    def discard(self) -> None:
        """Forget the messages that were not sent."""
        self._gathered = []
        super().discard()


class Publishing(QueueCommands):
    """A channel's way to publish: by `publish.lua`, which knows the bound of the queue."""

    #: Queue -> its limits in the pools table.
    queues: dict[str, dict[str, Any]] = {}
    #: Seconds that a sender waits for room in a full queue.
    full_queue_timeout: float = 0.0

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Return a batch for kombu's `Producer.batch()`."""
        return PublishBatch(self, max_size)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Publish one message: a task by `publish.lua`, or with its batch.

        A message of remote control as kombu does.
        """
        if not self.holds_tasks(queue):
            super()._put(queue, message, **kwargs)
            return
        headers = message.get("headers") or {}
        if isinstance(headers.get(OWN), dict):
            kept = carried_fields(headers.pop(OWN), str(headers.get("id", "")))
            headers.update({} if kept is None else {OWN: kept})
        # A retry or the next link of a chain comes from the pool itself, so it must never wait for room.
        own = bool(headers.get("retries")) or headers.get("parent_id") is not None
        outgoing = Outgoing(
            queue,
            str(headers.get("id", "")),
            dumps(message),
            self._get_message_priority(message, reverse=False),
            parse_eta_ms(headers.get("eta")),
        )
        if len(outgoing.payload) > LARGE_BYTES:
            self._check_length(outgoing)
        sending: Sending = ("exempt" if own else self._policy_of(queue), outgoing)
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            batch.gather(sending)
        else:
            self.send([sending])

    def send(self, messages: Sequence[Sending]) -> None:
        """Send messages, those of one policy in one round trip.

        Raises kombu's `OperationalError`, which is a `QueueFull` too if messages had no room. The others were
        sent.
        """
        refused: list[tuple[Outgoing, publish.Full]] = []
        for policy, group in groupby(messages, key=lambda each: each[0]):
            outgoing = [each for _, each in group]
            with _translate_for_kombu():
                outcomes = publish.publish(self.store, outgoing, policy=policy)
            refused += [
                (each, outcome)
                for each, outcome in zip(outgoing, outcomes, strict=True)
                if isinstance(outcome, publish.Full)
            ]
        ends_at = time.monotonic() + self.full_queue_timeout
        for each, full in refused:
            with _translate_for_kombu():
                self._wait_and_send(each, full, ends_at)
        for queue in {each.queue for _, each in messages} & self._expires.keys():
            self.expire(queue)

    def _wait_and_send(self, message: Outgoing, full: publish.Full, ends_at: float) -> None:
        """Wait until a message has room, at most until a time, and send it."""
        queue, ticket, waits = message.queue, new_ticket(1), False
        if limits.read_limits(self.store, queue).overflow == "shed":  # its workers' table says so
            publish.publish(self.store, [message], policy="shed")
            return
        try:
            while (left := ends_at - time.monotonic()) > 0:
                caller = publish.Caller(ticket, stays=True)
                [outcome] = publish.publish(self.store, [message], policy="block", caller=caller)
                if not isinstance(outcome, publish.Full):
                    waits = False
                    return
                full, waits = outcome, not outcome.delayed
                if outcome.delayed:  # no line forms
                    time.sleep(min(left, 0.25))
                else:
                    wait_for_room(self.store, queue, ticket, min(left, CHECK_SECONDS))
        finally:
            if waits:
                with suppress(BrokerError):
                    leave_line(self.store, queue, ticket)
        raise SendingToFullQueue(queue, bound=full.bound, depth=full.depth, paused=full.paused)

    def _check_length(self, message: Outgoing) -> None:
        """Refuse a message that its consumers would refuse as too long."""
        length, max_bytes = len(message.payload), limits.read_limits(self.store, message.queue).message_bytes
        if length > max_bytes:
            raise SendingRefused(
                f"a message of {length} bytes is too long for queue {message.queue!r}, which takes "
                f"{max_bytes}. Send where its data lies instead, or raise `message_bytes` of the queue in "
                "the pools table"
            )

    def _policy_of(self, queue: str) -> publish.Policy:
        """Return the overflow policy of a queue for senders that never wait."""
        return "shed" if self.queues.get(queue, {}).get("overflow") == "shed" else "reject"


@contextmanager
def _translate_for_kombu() -> Iterator[None]:
    """Raise errors of the broker as ones that kombu retries, or shows as an `OperationalError`."""
    try:
        yield
    except QueueFull:
        raise
    except BrokerAway as error:
        raise SendingFailed(str(error)) from error
    except BrokerError as error:
        raise SendingRefused(str(error)) from error


def carried_fields(own: Mapping[str, Any], id: str) -> dict[str, Any] | None:
    """Return the fields that a message keeps of the header `own` with which a task sends it.

    `of` in the header names the task that it belongs to. A retry has the id of that task, and stays in its
    batch. For another `id` this returns None: a handler that copies its request's headers into another task
    does not put that task into the batch.
    """
    if own.get("of", id) != id:
        return None
    return {name: own[name] for name in ("at", "batch", "after", "once", "link") if name in own}
