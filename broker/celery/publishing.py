"""Publish the messages of kombu's producers, one at a time, or those of a `Producer.batch()` together.

If the broker is unreachable, kombu tries again by Celery's publish policy, and raises `OperationalError` in
the end. A full queue raises an `OperationalError` at once, unless `full_queue_timeout` lets the sender wait.
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
from millpond.broker.celery.queue_commands import QueueCommandChannel
from millpond.broker.errors import BrokerAway, BrokerError, QueueFull
from millpond.broker.header_times import parse_eta_ms
from millpond.broker.message import OWN
from millpond.broker.outgoing import Outgoing

#: A waiting sender publishes again this often, in case the server has lost its ticket.
RENEW_TICKET_SECONDS = 15.0

#: The length of a longer message is compared with the limit of its queue before it is sent.
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
        self._messages: list[Sending] = []

    def publish(self, message: Any, **kwargs: Any) -> Any:
        """Add one message. The batch is sent when it is large enough, and when it ends."""
        result = super().publish(message, **kwargs)
        if len(self._messages) >= self.max_size:
            self.flush()
        return result

    def add_message(self, sending: Sending) -> None:
        """Add a message for a queue of tasks, which the channel has routed."""
        self._messages.append(sending)

    def flush(self) -> None:
        """Send the gathered messages."""
        super().flush()
        gathered, self._messages = self._messages, []
        if gathered:
            self.channel.send(gathered)

    def discard(self) -> None:
        """Forget the messages that were not sent."""
        self._messages = []
        super().discard()


class PublishingChannel(QueueCommandChannel):
    """A channel's way to publish: by `publish.lua`, which knows the bound of the queue."""

    #: Queue -> its limits in the pools table.
    queues: dict[str, dict[str, Any]] = {}
    #: Seconds that a sender waits for room in a full queue.
    full_queue_timeout: float = 0.0

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Return a batch for kombu's `Producer.batch()`."""
        return PublishBatch(self, max_size)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Publish a task by `publish.lua`, or add it to its batch. Publish other messages as kombu does.

        Raises kombu's `OperationalError`.
        """
        if not self.holds_tasks(queue):
            super()._put(queue, message, **kwargs)
            return
        headers = message.get("headers") or {}
        if isinstance(headers.get(OWN), dict):
            kept = select_kept_fields(headers.pop(OWN), str(headers.get("id", "")))
            headers.update({} if kept is None else {OWN: kept})
        # A retry or the next task of a chain comes from the pool itself, so it must never wait for room.
        is_from_pool = bool(headers.get("retries")) or headers.get("parent_id") is not None
        outgoing = Outgoing(
            queue,
            str(headers.get("id", "")),
            dumps(message),
            self._get_message_priority(message, reverse=False),
            parse_eta_ms(headers.get("eta")),
        )
        if len(outgoing.payload) > LARGE_BYTES:
            self._check_length(outgoing)
        sending: Sending = ("exempt" if is_from_pool else self._policy_of(queue), outgoing)
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            batch.add_message(sending)
        else:
            self.send([sending])

    def send(self, messages: Sequence[Sending]) -> None:
        """Send messages, successive ones of one policy in one round trip.

        Raises kombu's `OperationalError`. If a message has no room within `full_queue_timeout`, the error is
        a `QueueFull` too. Messages that had room were sent.
        """
        refused: list[tuple[Outgoing, publish.Full]] = []
        for policy, group in groupby(messages, key=lambda sending: sending[0]):
            outgoing = [message for _, message in group]
            with _translate_for_kombu():
                answers = publish.publish(self.store, outgoing, policy=policy)
            refused += [
                (message, answer)
                for message, answer in zip(outgoing, answers, strict=True)
                if isinstance(answer, publish.Full)
            ]
        ends_at = time.monotonic() + self.full_queue_timeout
        for message, full in refused:
            with _translate_for_kombu():
                self._wait_and_send(message, full, ends_at)
        for queue in {message.queue for _, message in messages} & self._expires.keys():
            self.restart_expiry(queue)

    def _wait_and_send(self, message: Outgoing, full: publish.Full, ends_at: float) -> None:
        """Wait until a message that was refused (`full`) has room, at most until `ends_at`, and send it.

        If its queue sheds, send it at once. Raises `SendingToFullQueue`.
        """
        queue, ticket, is_in_line = message.queue, new_ticket(1), False
        if limits.read_limits(self.store, queue).overflow == "shed":  # as its workers have declared
            publish.publish(self.store, [message], policy="shed")
            return
        try:
            while (left := ends_at - time.monotonic()) > 0:
                caller = publish.Caller(ticket, stays=True)
                [answer] = publish.publish(self.store, [message], policy="block", caller=caller)
                if not isinstance(answer, publish.Full):
                    is_in_line = False
                    return
                full, is_in_line = answer, not answer.delayed
                if answer.delayed:  # there is no admission line for delayed messages
                    time.sleep(min(left, 0.25))
                else:
                    wait_for_room(self.store, queue, ticket, min(left, RENEW_TICKET_SECONDS))
        finally:
            if is_in_line:
                with suppress(BrokerError):
                    leave_line(self.store, queue, ticket)
        raise SendingToFullQueue(queue, bound=full.bound, depth=full.depth, paused=full.paused)

    def _check_length(self, message: Outgoing) -> None:
        """Raise `SendingRefused` for a message that is longer than its queue allows."""
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
    """Raise errors of the broker as errors that kombu knows. A `QueueFull` is raised unchanged."""
    try:
        yield
    except QueueFull:
        raise
    except BrokerAway as error:
        raise SendingFailed(str(error)) from error
    except BrokerError as error:
        raise SendingRefused(str(error)) from error


def select_kept_fields(header: Mapping[str, Any], id: str) -> dict[str, Any] | None:
    """Return the fields of Millpond's header that the message with this id keeps, or None for no header.

    The field `of` names the task to which the header belongs. A retry has the id of that task, and stays in
    its batch. A message with another id is sent by a handler that has copied the headers of its own task. It
    keeps nothing, so it is not counted in the batch.
    """
    if header.get("of", id) != id:
        return None
    return {name: header[name] for name in ("at", "batch", "after", "once", "link") if name in header}
