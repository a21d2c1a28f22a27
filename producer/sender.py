"""The one path of messages from a client to the broker, for one message and for a stream of ten million.

Messages of a stream are composed one by one, gathered into chunks and offered to their queues, so a stream
needs the memory of one chunk. A chunk is sent when it is full, or when a message arrives later than
`CHUNK_SECONDS` after the last chunk.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from sys import modules
from typing import Any

from millpond.broker.batches.batch_callback import UNKNOWN, callback_header
from millpond.broker.connection import Store
from millpond.broker.errors import BatchClosed, BrokerError, DeadlineExceeded, QueueFull
from millpond.broker.inspect import depth
from millpond.broker.message import new_id
from millpond.broker.outgoing import Outgoing
from millpond.broker.publish import Accepted, Answer, Closed, Duplicate, Full, Late, publish
from millpond.producer.backpressure import AdmissionLine, FlowControl, send_blocking
from millpond.producer.caller_runs import CallerRuns, Ran
from millpond.producer.celery_tasks import call_of, compose_celery_task, is_celery_task
from millpond.producer.message import Call, Message, compose_job, contract_from
from millpond.producer.queue_cache import QueueCache
from millpond.producer.send_outcomes import Refused, Sent
from millpond.producer.server_clock import ServerClock
from millpond.tasks.contract import Contract
from millpond.tasks.errors import MillpondError, SendInterrupted
from millpond.tasks.middleware import Hooks, Sending, add_headers
from millpond.tasks.pools import Overflow
from millpond.tasks.process.spans import SDK

#: A chunk is sent once its payloads have more characters than this, or this time after the last chunk.
CHUNK_CHARACTERS = 4_000_000
CHUNK_SECONDS = 0.05
#: The note of an unexpected error, as of middleware, that was raised before anything of its chunk was sent.
NOT_SENT = "the task was not sent"


@dataclass(frozen=True)
class Sender:
    """Sends messages to one broker, each under the overflow policy of its queue or of the call."""

    store: Store
    clock: ServerClock
    queues: QueueCache
    #: The modules with further handlers, for `caller_runs`.
    kinds: tuple[str, ...] = ()
    #: The Celery application of the settings, for tasks that are sent by name.
    app: str | None = None
    #: The hooks of middleware: without those of tracing, and with them for a process that uses OpenTelemetry.
    hooks: tuple[Hooks, Hooks] = (Hooks(), Hooks())
    #: Tasks, by id, that the broker has not replied to, and for which `on_sent` of middleware is still to be
    #: called.
    unanswered: dict[str, Sending] = field(default_factory=dict, repr=False)

    def stream(
        self,
        messages: Iterable[Message],
        *,
        overflow: Overflow | None,
        timeout_seconds: float | None,
        batch: str | None,
    ) -> Iterator[Sent | Refused]:
        """Yield the outcome of each message, in order.

        All messages of a chunk are validated before the chunk is sent. Raises the errors of `Client.send` for
        a message that is not valid.
        """
        flow, chunk = FlowControl(), list[Outgoing]()
        composed = self._compose_each(messages, batch, chunk)
        with self._notify_unanswered(chunk):
            for _ in _fill_chunks(chunk, composed, flow):
                queues = {message.queue for message in chunk}
                policies = {queue: overflow or self.queues.overflow_policy(queue) for queue in queues}
                queue_age = cache(self._read_queue_age)  # a full queue is asked at most once a chunk
                for policy, group in groupby(chunk, key=lambda m: policies[m.queue]):
                    same_policy = list(group)
                    answers = self._send_under_policy(same_policy, policy, timeout_seconds, flow)
                    for message, answer in zip(same_policy, answers, strict=True):
                        if type(answer) is Accepted and not self.unanswered:
                            yield Sent(message.id, message.queue)  # the usual case, without a call
                        else:
                            yield self._finish_send(message, answer, queue_age)

    def _compose_each(
        self, messages: Iterable[Message], batch: str | None, chunk: list[Outgoing]
    ) -> Iterator[Outgoing]:
        """Yield each message composed. An interrupt meanwhile, as by Ctrl-C, drops the chunk unsent.

        Middleware is not called for these messages then, because nothing is sent and nothing has failed.
        """
        try:
            for message in messages:
                yield self._compose_message(message, batch)
        except (KeyboardInterrupt, SystemExit):
            for composed in chunk:
                self.unanswered.pop(composed.id, None)
            raise

    def send_one(
        self, message: Message, *, overflow: Overflow | None, timeout_seconds: float | None, batch: str | None
    ) -> Sent | Refused:
        """Send one message and return its outcome. Raises the errors of `Client.send` if it is not valid."""
        composed = self._compose_message(message, batch)
        policy = overflow or self.queues.overflow_policy(composed.queue)
        with self._notify_unanswered([composed]):
            (answer,) = self._send_under_policy([composed], policy, timeout_seconds, FlowControl())
            return self._finish_send(composed, answer, self._read_queue_age)

    def _send_under_policy(
        self, messages: list[Outgoing], policy: Overflow, timeout_seconds: float | None, flow: FlowControl
    ) -> Iterable[Answer | Ran]:
        """Return the replies to messages of one overflow policy, in order.

        Under `block` and `caller_runs` the messages are sent while the replies are iterated.
        """
        match policy:
            case "block":
                line = AdmissionLine(self.store, self.clock.now_ms)
                return send_blocking(messages, line=line, timeout_seconds=timeout_seconds, flow=flow)
            case "caller_runs":
                around = self.hooks[0].around_executing
                return CallerRuns(self.store, self.clock, self.kinds, around).send_all(messages, flow)
        return publish(self.store, messages, policy=policy)

    def compose_callback(self, message: Message, batch: str, description: str) -> Outgoing:
        """Compose the callback of a batch. The script that completes the batch adds the counts and the time.

        Raises the errors of `Client.send`.
        """
        return self._compose_message(message, None, callback_header(batch, description))

    def _compose_message(
        self, message: Message, batch: str | None, after: dict[str, Any] | None = None
    ) -> Outgoing:
        """Compose a message for the broker, with the headers that middleware adds.

        `after` is the header of a batch callback, which the broker sends later. An unknown queue and a
        message that is too long are refused here. Calls `on_sent` of middleware for a refused message, and
        keeps the others in `unanswered`, except callbacks. Raises the errors of `Client.send`.
        """
        item = message.contract
        job: Contract | Call
        if isinstance(item, Contract) and item.kind:  # the usual case, without a call
            job = item
        else:
            job = call_of(item) if is_celery_task(item) else contract_from(item)
        queue = message.queue or ("" if isinstance(job, Call) else job.queue)
        if queue and queue not in self.queues.known:
            self.queues.overflow_policy(queue)  # raises for an unknown queue, before the chunk is sent
        sending = Sending(job, message.id or new_id(), queue, batch, message.traceparent)
        hooks = self.hooks[SDK in modules and after is None]  # the span of a callback would never end
        try:
            if isinstance(job, Call):
                composed = self._compose_celery_task(message, sending, hooks, after)
            else:
                now_ms = self.clock.now_ms() if after is None else UNKNOWN
                if hooks.on_sending:
                    add_headers(hooks.on_sending, sending)
                composed = compose_job(message, sending, now_ms=now_ms, after=after)
            if len(composed.payload) > self.queues.shortest_maximum:
                self.queues.check_length(composed)
        except Exception as error:
            if not isinstance(error, MillpondError | ValueError):
                error.add_note(NOT_SENT)
            for on_sent in hooks.on_sent:
                on_sent(sending, error)
            raise
        if hooks.on_sent and after is None:
            self.unanswered[composed.id] = sending
        return composed

    def _compose_celery_task(
        self,
        message: Message,
        sending: Sending,
        hooks: Hooks,
        after: dict[str, Any] | None,
    ) -> Outgoing:
        """Compose the message of a Celery task.

        Middleware sees the task once its queue and id are known, which its application may choose.
        """

        def call_middleware(queue: str, id: str) -> None:
            """Set the queue and the id of `sending`, and let middleware add to it. Raises `UnknownQueue`."""
            sending.queue, sending.id = queue, id
            self.queues.overflow_policy(queue)
            add_headers(hooks.on_sending, sending)

        return compose_celery_task(
            message,
            sending,
            read_now_ms=self.clock.now_ms if after is None else lambda: UNKNOWN,
            app=self.app,
            after=after,
            on_routed=call_middleware,
        )

    def _finish_send(
        self, message: Outgoing, answer: Answer | Ran, queue_age: Callable[[str], float | None]
    ) -> Sent | Refused:
        """Return the outcome of a send, after `on_sent` of middleware was called with it.

        `queue_age` returns the age of the oldest message of a full queue.
        """
        outcome = _outcome_of(message, answer, queue_age)
        self._notify_middleware(message, outcome.error if isinstance(outcome, Refused) else None)
        return outcome

    @contextmanager
    def _notify_unanswered(self, messages: Iterable[Outgoing]) -> Iterator[None]:
        """A context in which messages are sent. If it raises, call `on_sent` for those without an outcome.

        They get its error. For an interrupt, or a caller that leaves a stream, it is `SendInterrupted`.
        """
        try:
            yield
        except Exception as error:
            self._notify_failed(messages, error)
            raise
        except BaseException as interrupt:
            reason = f"the sending was interrupted ({type(interrupt).__name__})"
            self._notify_failed(messages, SendInterrupted(f"{reason}: the task may have been accepted"))
            raise

    def _notify_failed(self, messages: Iterable[Outgoing], error: Exception) -> None:
        """Call `on_sent` of middleware with an error, for messages for which it was not called before."""
        for message in messages:
            self._notify_middleware(message, error)

    def _notify_middleware(self, message: Outgoing, error: Exception | None) -> None:
        """Call `on_sent` of middleware for a message, with its error or None, unless it was called before."""
        sending = self.unanswered.pop(message.id, None) if self.unanswered else None
        if sending is not None:
            for on_sent in self.hooks[SDK in modules].on_sent:
                on_sent(sending, error)

    def _read_queue_age(self, queue: str) -> float | None:
        """Return the age of the oldest message of a queue in seconds, None if the broker does not reply."""
        try:
            return depth.read_depth(self.store, queue).oldest_seconds
        except BrokerError:
            return None


def _outcome_of(
    message: Outgoing, answer: Answer | Ran, queue_age: Callable[[str], float | None]
) -> Sent | Refused:
    """Return the outcome of a send for the reply to its message."""
    match answer:
        case Accepted(id):
            return Sent(id, message.queue)
        case Duplicate(id, original):
            return Sent(id, message.queue, duplicate_of=original)
        case Closed(id, batch):
            text = f"batch {batch} accepts no task: it is closed, cancelled or unknown. Open a new one"
            return Refused(id, message.queue, BatchClosed(text))
        case Ran(id, outcome):
            return Sent(id, message.queue, ran_here=outcome)
        case Late(id, queue, wait_ms):
            return Refused(id, queue, DeadlineExceeded(queue, wait_seconds=wait_ms / 1000))
        case Full(id, queue):
            return Refused(id, queue, _queue_full_error(answer, queue_age(queue)))
    raise AssertionError(f"the broker cannot answer {answer!r} here")


def _queue_full_error(answer: Full, oldest_seconds: float | None) -> QueueFull:
    """Return the error of a full queue, with the time after which the message would fit, if it is known."""
    surplus = max(1, answer.depth - answer.bound + 1)
    return QueueFull(
        answer.queue,
        bound=answer.bound,
        depth=answer.depth,
        oldest_seconds=oldest_seconds,
        retry_after_seconds=surplus / answer.per_second if answer.per_second else None,
        paused=answer.paused,
    )


def _fill_chunks(chunk: list[Outgoing], messages: Iterable[Outgoing], flow: FlowControl) -> Iterator[None]:
    """Move messages into `chunk`, and yield whenever it is to be sent. It is emptied after each yield.

    A chunk is bounded by number, size and the time since the last one. The first message is a chunk of its
    own, so that it is sent at once.
    """
    size, sent_at = 0, time.monotonic() - CHUNK_SECONDS
    for message in messages:
        chunk.append(message)
        size += len(message.payload)
        is_full = len(chunk) >= flow.chunk_size or size > CHUNK_CHARACTERS
        if is_full or time.monotonic() - sent_at > CHUNK_SECONDS:
            yield
            chunk.clear()
            size, sent_at = 0, time.monotonic()
    if chunk:
        yield
