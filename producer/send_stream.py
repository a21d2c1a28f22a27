"""Send a stream of messages: the one path from a client to the broker, for one message and for ten million.

Messages are composed one by one, gathered into chunks and offered to their queues, so a stream needs the
memory of one chunk. A chunk is sent when it is full, or when a message arrives later than `CHUNK_SECONDS`
after the last chunk.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from typing import Any

from millpond.broker.batches.batch_callback import UNKNOWN, header
from millpond.broker.connection import Store
from millpond.broker.errors import BatchClosed, BrokerError, DeadlineExceeded, QueueFull
from millpond.broker.inspect import depth
from millpond.broker.message import Outgoing
from millpond.broker.publish import Closed, Duplicate, Full, Late, Outcome, Taken, publish
from millpond.producer.backpressure import AdmissionLine, FlowControl, offer
from millpond.producer.caller_runs import CallerRuns, Ran
from millpond.producer.message import Message, contract_from, outgoing
from millpond.producer.queues import QueueCache
from millpond.producer.send_outcomes import Refused, Sent
from millpond.producer.server_clock import ServerClock
from millpond.tasks.middleware import Middleware, note_sending, overriding
from millpond.tasks.pools import Overflow
from millpond.tasks.process import tracing

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
    middleware: tuple[Middleware, ...] = ()
    #: Open spans of messages without an outcome, by task id; empty without tracing.
    spans: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def _on_sending(self) -> tuple[Middleware, ...]:
        return overriding(self.middleware, "on_sending")

    @cached_property
    def _on_sent(self) -> tuple[Middleware, ...]:
        return overriding(self.middleware, "on_sent")

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
        for chunk in _chunks((self._compose(message, batch) for message in messages), flow):
            policies = {queue: overflow or self.queues.overflow(queue) for queue in {m.queue for m in chunk}}
            for policy, run in groupby(chunk, key=lambda m: policies[m.queue]):
                same_policy = list(run)
                answers = self._offer(same_policy, policy, timeout_seconds, flow)
                age = cache(self._oldest_seconds)  # read at most once a chunk, and only if a queue is full
                for message, answer in zip(same_policy, answers, strict=True):
                    is_plain = type(answer) is Taken and not (self.spans or self._on_sent)
                    yield Sent(message.id, message.queue) if is_plain else self._outcome(message, answer, age)

    def one(
        self, message: Message, *, overflow: Overflow | None, timeout_seconds: float | None, batch: str | None
    ) -> Sent | Refused:
        """Send one message and return its outcome."""
        composed = self._compose(message, batch)
        policy = overflow or self.queues.overflow(composed.queue)
        (answer,) = self._offer([composed], policy, timeout_seconds, FlowControl())
        return self._outcome(composed, answer, self._oldest_seconds)

    def _offer(
        self, messages: list[Outgoing], policy: Overflow, timeout_seconds: float | None, flow: FlowControl
    ) -> Iterable[Outcome | Ran]:
        match policy:
            case "block":
                line = AdmissionLine(self.store, self.clock.now_ms)
                return offer(messages, line=line, timeout_seconds=timeout_seconds, flow=flow)
            case "caller_runs":
                around = overriding(self.middleware, "around_executing")
                return CallerRuns(self.store, self.clock, self.kinds, around).offer(messages, flow)
        return publish(self.store, messages, policy=policy)

    def callback(self, message: Message, batch: str, description: str) -> Outgoing:
        """Return the composed callback of a batch; the script that completes the batch fills in the rest."""
        contract = contract_from(message.contract)
        queue = message.queue or contract.queue
        self.queues.overflow(queue)
        told = header(batch, description)
        headers = note_sending(self._on_sending, contract)
        return outgoing(message, contract, queue=queue, now_ms=UNKNOWN, after=told, headers=headers)

    def _compose(self, message: Message, batch: str | None) -> Outgoing:
        contract = contract_from(message.contract)
        queue = message.queue or contract.queue
        if queue not in self.queues.known:
            self.queues.overflow(queue)  # an unknown queue is refused before any message of its chunk is sent
        span, now_ms = None, self.clock.now_ms()
        if tracing.SDK in sys.modules:
            span = tracing.begin(f"send {queue}", "PRODUCER", message.traceparent)
        trace = message.traceparent if span is None else tracing.traceparent(span)
        headers = note_sending(self._on_sending, contract) if self._on_sending else None
        made = outgoing(
            message, contract, queue=queue, now_ms=now_ms, batch=batch, traceparent=trace, headers=headers
        )
        if len(made.payload) > self.queues.least_length:
            self.queues.check_length(made)
        if span is None:
            return made
        span.set_attributes(tracing.attributes(contract.kind, id=made.id, queue=queue, own={"batch": batch}))
        self.spans[made.id] = span
        return made

    def _outcome(
        self, message: Outgoing, answer: Outcome | Ran, age: Callable[[str], float | None]
    ) -> Sent | Refused:
        outcome = _outcome(message, answer, age)
        if self.spans:
            self._end_span(message, outcome)
        for each in self._on_sent:
            each.on_sent(message.id, outcome.error if isinstance(outcome, Refused) else None)
        return outcome

    def _end_span(self, message: Outgoing, outcome: Sent | Refused) -> None:
        span = self.spans.pop(message.id, None)
        if span is not None:
            if isinstance(outcome, Refused):
                tracing.failed(span, type(outcome.error).__name__)
            span.end()

    def _oldest_seconds(self, queue: str) -> float | None:
        try:
            return depth.depth(self.store, queue).oldest_seconds
        except BrokerError:
            return None


def _outcome(message: Outgoing, answer: Outcome | Ran, age: Callable[[str], float | None]) -> Sent | Refused:
    match answer:
        case Taken(id):
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
            return Refused(id, queue, _full(answer, age(queue)))
    raise AssertionError(f"the broker cannot answer {answer!r} here")


def _full(answer: Full, oldest_seconds: float | None) -> QueueFull:
    over = max(1, answer.depth - answer.bound + 1)
    return QueueFull(
        answer.queue,
        bound=answer.bound,
        depth=answer.depth,
        oldest_seconds=oldest_seconds,
        retry_after_seconds=over / answer.per_second if answer.per_second else None,
        paused=answer.paused,
    )


def _chunks(messages: Iterable[Outgoing], flow: FlowControl) -> Iterator[list[Outgoing]]:
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
