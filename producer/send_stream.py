"""Send a stream of messages: the one path from a client to the broker, for one message and for ten million.

Messages are composed one by one, gathered into chunks and offered to their queues, so a stream needs the
memory of one chunk. A chunk is sent when it is full, or when a message arrives later than `CHUNK_SECONDS`
after the last chunk.
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
from millpond.broker.message import Outgoing, new_id
from millpond.broker.publish import Accepted, Answer, Closed, Duplicate, Full, Late, publish
from millpond.producer.backpressure import AdmissionLine, FlowControl, send_blocking
from millpond.producer.caller_runs import CallerRuns, Ran
from millpond.producer.celery_tasks import call_of, compose_celery_task, is_celery_task
from millpond.producer.message import Call, Message, compose_contract, contract_from
from millpond.producer.queues import QueueCache
from millpond.producer.send_outcomes import Refused, Sent
from millpond.producer.server_clock import ServerClock
from millpond.tasks.contract import Contract
from millpond.tasks.middleware import Hooks, Sending, add_headers
from millpond.tasks.pools import Overflow
from millpond.tasks.process.spans import SDK

CHUNK_CHARACTERS = 4_000_000
CHUNK_SECONDS = 0.05


@dataclass(frozen=True)
class Sender:
    """Sends to one broker, each message under the overflow policy of its queue."""

    store: Store
    clock: ServerClock
    queues: QueueCache
    #: The modules with further handlers, for `caller_runs`.
    kinds: tuple[str, ...] = ()
    #: The Celery application of the settings, for tasks that are sent by name.
    app: str | None = None
    #: The hooks of middleware, without OpenTelemetry in this process and with it.
    hooks: tuple[Hooks, Hooks] = (Hooks(), Hooks())
    #: Tasks that middleware has seen and that have no reply of the broker so far, by id.
    unanswered: dict[str, Sending] = field(default_factory=dict, repr=False)

    def stream(
        self,
        messages: Iterable[Message],
        *,
        overflow: Overflow | None,
        timeout_seconds: float | None,
        batch: str | None,
    ) -> Iterator[Sent | Refused]:
        """Yield the outcome of each message, in order. Each message is validated before its chunk is sent."""
        flow = FlowControl()
        for chunk in _split_chunks((self._compose_message(message, batch) for message in messages), flow):
            policies = {
                queue: overflow or self.queues.overflow_policy(queue) for queue in {m.queue for m in chunk}
            }
            for policy, run in groupby(chunk, key=lambda m: policies[m.queue]):
                same_policy = list(run)
                age = cache(self._oldest_seconds)  # read at most once a chunk, and only if a queue is full
                with self._notify_unanswered(same_policy):
                    answers = self._send_under_policy(same_policy, policy, timeout_seconds, flow)
                    for message, answer in zip(same_policy, answers, strict=True):
                        is_plain = type(answer) is Accepted and not self.unanswered
                        yield (
                            Sent(message.id, message.queue)
                            if is_plain
                            else self._make_outcome(message, answer, age)
                        )

    def send_one(
        self, message: Message, *, overflow: Overflow | None, timeout_seconds: float | None, batch: str | None
    ) -> Sent | Refused:
        """Send one message and return its outcome."""
        composed = self._compose_message(message, batch)
        policy = overflow or self.queues.overflow_policy(composed.queue)
        with self._notify_unanswered([composed]):
            (answer,) = self._send_under_policy([composed], policy, timeout_seconds, FlowControl())
            return self._make_outcome(composed, answer, self._oldest_seconds)

    def _send_under_policy(
        self, messages: list[Outgoing], policy: Overflow, timeout_seconds: float | None, flow: FlowControl
    ) -> Iterable[Answer | Ran]:
        """Return the broker's replies for messages of one overflow policy."""
        match policy:
            case "block":
                line = AdmissionLine(self.store, self.clock.now_ms)
                return send_blocking(messages, line=line, timeout_seconds=timeout_seconds, flow=flow)
            case "caller_runs":
                around = self.hooks[0].around_executing
                return CallerRuns(self.store, self.clock, self.kinds, around).run_all(messages, flow)
        return publish(self.store, messages, policy=policy)

    def compose_callback(self, message: Message, batch: str, description: str) -> Outgoing:
        """Return the composed callback of a batch. The script that completes the batch fills in the rest."""
        header = callback_header(batch, description)
        if is_celery_task(message.contract):
            celerys = Sending(call_of(message.contract), message.id or new_id(), message.queue or "")
            return self._compose_celery_task(message, celerys, self.hooks[0], now_ms=UNKNOWN, after=header)
        contract = contract_from(message.contract)
        queue = message.queue or contract.queue
        self.queues.overflow_policy(queue)
        sending = Sending(contract, message.id or new_id(), queue)
        add_headers(self.hooks[0].on_sending, sending)
        return _compose_contract(message, sending, now_ms=UNKNOWN, after=header)

    def _compose_message(self, message: Message, batch: str | None) -> Outgoing:
        """Compose the message of an item, with middleware's headers. Raises the errors of `Client.send`."""
        item = message.contract
        job: Contract | Call
        if isinstance(item, Contract) and item.kind:
            job = item
        else:
            job = call_of(item) if is_celery_task(item) else contract_from(item)
        queue = message.queue or ("" if isinstance(job, Call) else job.queue)
        if queue and queue not in self.queues.known:
            # An unknown queue is refused before any message of its chunk is sent.
            self.queues.overflow_policy(queue)
        sending = Sending(job, message.id or new_id(), queue, batch, message.traceparent)
        hooks = self.hooks[SDK in modules]
        try:
            if isinstance(job, Call):
                composed = self._compose_celery_task(message, sending, hooks)
            else:
                if hooks.on_sending:
                    add_headers(hooks.on_sending, sending)
                composed = _compose_contract(message, sending, now_ms=self.clock.now_ms())
            if len(composed.payload) > self.queues.least_length:
                self.queues.check_length(composed)
        except Exception as error:
            for on_sent in hooks.on_sent:
                on_sent(sending, error)
            raise
        if hooks.on_sent:
            self.unanswered[composed.id] = sending
        return composed

    def _compose_celery_task(
        self,
        message: Message,
        sending: Sending,
        hooks: Hooks,
        *,
        now_ms: int | None = None,
        after: dict[str, Any] | None = None,
    ) -> Outgoing:
        """Compose the message of a Celery task, with the headers that middleware adds."""

        def headers(queue: str, id: str) -> dict[str, Any]:
            """Return the headers of a message, with those that middleware adds."""
            sending.queue, sending.id = queue, id
            self.queues.overflow_policy(queue)
            add_headers(hooks.on_sending, sending)
            trace = {} if sending.traceparent is None else {"traceparent": sending.traceparent}
            return {**sending.headers, **trace}

        now_ms = self.clock.now_ms() if now_ms is None else now_ms
        return compose_celery_task(
            message,
            id=sending.id,
            now_ms=now_ms,
            app=self.app,
            batch=sending.batch,
            after=after,
            more_headers=headers,
        )

    def _make_outcome(
        self, message: Outgoing, answer: Answer | Ran, age: Callable[[str], float | None]
    ) -> Sent | Refused:
        """Return the outcome of a send for the broker's reply, and pass it to the middleware."""
        outcome = _make_outcome(message, answer, age)
        self._notify_middleware(message, outcome.error if isinstance(outcome, Refused) else None)
        return outcome

    @contextmanager
    def _notify_unanswered(self, messages: Iterable[Outgoing]) -> Iterator[None]:
        """Call `on_sent` for the messages without a reply when a block raises: the broker was unreachable."""
        try:
            yield
        except BaseException as error:
            for message in messages:
                self._notify_middleware(message, error if isinstance(error, Exception) else None)
            raise

    def _notify_middleware(self, message: Outgoing, error: Exception | None) -> None:
        """Call `on_sent` of the middleware once for a message, with its error or None."""
        sending = self.unanswered.pop(message.id, None) if self.unanswered else None
        if sending is not None:
            for on_sent in self.hooks[SDK in modules].on_sent:
                on_sent(sending, error)

    def _oldest_seconds(self, queue: str) -> float | None:
        """Return the age of the oldest message of a queue. Return None if the broker does not reply."""
        try:
            return depth.read_depth(self.store, queue).oldest_seconds
        except BrokerError:
            return None


def _compose_contract(
    message: Message, sending: Sending, *, now_ms: int, after: dict[str, Any] | None = None
) -> Outgoing:
    """Return the message of a contract, with the headers that middleware added."""
    return compose_contract(
        message,
        sending.job,
        queue=sending.queue,
        now_ms=now_ms,
        id=sending.id,
        batch=sending.batch,
        after=after,
        traceparent=sending.traceparent,
        headers=sending.headers or None,
    )


def _make_outcome(
    message: Outgoing, answer: Answer | Ran, age: Callable[[str], float | None]
) -> Sent | Refused:
    """Return the outcome of a send for the broker's reply."""
    match answer:
        case Accepted(id):
            return Sent(id, message.queue)
        case Duplicate(id, original):
            return Sent(id, message.queue, duplicate_of=original)
        case Closed(id, batch):
            why = f"batch {batch} accepts no task: it is closed, cancelled or unknown. Open a new one"
            return Refused(id, message.queue, BatchClosed(why))
        case Ran(id, how):
            return Sent(id, message.queue, ran_here=how)
        case Late(id, queue, wait_ms):
            return Refused(id, queue, DeadlineExceeded(queue, wait_seconds=wait_ms / 1000))
        case Full(id, queue):
            return Refused(id, queue, _queue_full_error(answer, age(queue)))
    raise AssertionError(f"the broker cannot answer {answer!r} here")


def _queue_full_error(answer: Full, oldest_seconds: float | None) -> QueueFull:
    """Return the error of a full queue, with the time until the message would fit."""
    over = max(1, answer.depth - answer.bound + 1)
    return QueueFull(
        answer.queue,
        bound=answer.bound,
        depth=answer.depth,
        oldest_seconds=oldest_seconds,
        retry_after_seconds=over / answer.per_second if answer.per_second else None,
        paused=answer.paused,
    )


def _split_chunks(messages: Iterable[Outgoing], flow: FlowControl) -> Iterator[list[Outgoing]]:
    """Yield messages in chunks, each bounded by number, size and the time it took to compose."""
    chunk: list[Outgoing] = []
    size, sent_at = 0, time.monotonic() - CHUNK_SECONDS
    for message in messages:
        chunk.append(message)
        size += len(message.payload)
        if len(chunk) >= flow.chunk or size > CHUNK_CHARACTERS or time.monotonic() - sent_at > CHUNK_SECONDS:
            yield chunk
            chunk, size, sent_at = [], 0, time.monotonic()
    if chunk:
        yield chunk
