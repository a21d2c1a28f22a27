"""Gather the single tasks of many requests into few calls to the broker.

The first task is sent at once. Tasks that arrive during its call share the next call. A lone request
therefore waits for no other, and under load many tasks share the cost of a round trip. Tokens take turns, and
so do the batches of a token. Tasks outside of batches share a call whatever token sent them. Streams use
`send_each` alone.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby

from millpond.producer.celery_tasks import is_celery_task
from millpond.producer.client import Client
from millpond.producer.gateway.problems import ApiError
from millpond.producer.message import Message, contract_from
from millpond.producer.send_outcomes import Refused, Sent
from millpond.producer.sender import NOT_SENT
from millpond.tasks.errors import BrokerError, MillpondError, UnknownQueue
from millpond.tasks.pools import Overflow

#: With two concurrent calls, each would carry fewer tasks, and both would compete for the interpreter.
CONCURRENT_CALLS = 1
#: The most messages of one call, and the most that wait for a call.
MESSAGES_A_CALL = 200
MOST_PENDING = 10_000

_NO_WAIT = timedelta(0)

#: The outcome of a message. It is an exception if the message is not valid, or may have been sent.
SendResult = Sent | Refused | Exception


def send_each(
    client: Client,
    messages: Sequence[Message],
    *,
    overflow: Overflow | None,
    timeout: timedelta,
    batch: str | None,
) -> Iterator[SendResult]:
    """Yield the outcome of each message, in order. An error is yielded, not raised.

    An invalid message does not prevent the others from being sent, nor does one for which middleware raises
    an error: `Client.send_each` has sent nothing of its chunk then, and the rest is sent one by one. After
    any other unexpected error messages of the rest may have been sent, so the error is the outcome of all.
    """
    count = 0
    try:
        for outcome in client.send_each(messages, overflow=overflow, timeout=timeout, batch=batch):
            count += 1
            yield outcome
    except Exception as error:
        is_expected = isinstance(error, MillpondError | ValueError) and not isinstance(error, BrokerError)
        is_unsent = is_expected or NOT_SENT in getattr(error, "__notes__", ())
        if not is_unsent or len(messages) - count == 1:
            for _ in messages[count:]:
                yield error
            return
        for message in messages[count:]:
            yield from send_each(client, [message], overflow=overflow, timeout=timeout, batch=batch)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A message that waits to be sent, and the future of its outcome."""

    message: Message
    overflow: Overflow | None
    batch: str | None
    result: "asyncio.Future[SendResult]"


class SendBatcher:
    """Sends single messages in shared calls. One event loop uses it."""

    def __init__(self, client: Client, threads: Executor) -> None:
        self._client = client
        self._threads = threads
        #: By token and then by batch (None: outside of batches). The next token and its next batch are first.
        self._pending: dict[str, dict[str | None, deque[_Pending]]] = {}
        self._pending_count = 0
        self._running_calls = 0

    async def send(
        self, message: Message, *, token: str, overflow: Overflow | None, batch: str | None
    ) -> Sent:
        """Send one message. Raises the errors of `Client.send`, and `ApiError` 503 if too many wait."""
        if self._pending_count >= MOST_PENDING:
            raise ApiError(503, "overloaded", "the gateway has too much to send: try again", retry_after=1)
        result: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        batches = self._pending.setdefault(token, {})
        batches.setdefault(batch, deque()).append(_Pending(message, overflow, batch, result))
        self._pending_count += 1
        self._start_calls()
        outcome = await result
        if isinstance(outcome, Sent):
            return outcome
        raise outcome if isinstance(outcome, Exception) else outcome.error

    def _start_calls(self) -> None:
        """Start calls for pending messages while fewer than `CONCURRENT_CALLS` run."""
        while self._pending and self._running_calls < CONCURRENT_CALLS:
            messages = self._take_messages()
            self._running_calls += 1
            future = asyncio.get_running_loop().run_in_executor(
                self._threads, partial(self._send_messages, messages)
            )
            future.add_done_callback(partial(self._deliver_results, messages))

    def _take_messages(self) -> list[_Pending]:
        """Remove and return the messages of one call: of the next batch of the next token.

        If these are outside of batches, the messages of other tokens outside of batches share the call.
        """
        token = next(iter(self._pending))
        batch = next(iter(self._pending[token]))
        messages = self._take_from_batch(token, batch, MESSAGES_A_CALL)
        if batch is None:
            for other in [name for name, batches in self._pending.items() if None in batches]:
                messages += self._take_from_batch(other, None, MESSAGES_A_CALL - len(messages))
        self._pending_count -= len(messages)
        return messages

    def _take_from_batch(self, token: str, batch: str | None, max_count: int) -> list[_Pending]:
        """Remove and return at most `max_count` messages of one batch of a token.

        If messages remain, the batch becomes the token's last, and the token the last of the tokens.
        """
        if max_count <= 0:
            return []
        batches = self._pending.pop(token)
        queue = batches.pop(batch)
        messages = [queue.popleft() for _ in range(min(len(queue), max_count))]
        if queue:
            batches[batch] = queue
        if batches:
            self._pending[token] = batches
        return messages

    def _send_messages(self, pending: list[_Pending]) -> list[SendResult]:
        """Send messages of one batch, and return their outcomes in order. Runs in a thread.

        Neighbours with the same overflow policy are sent together. An error of the broker is the outcome of
        all messages that are left.
        """
        results: list[SendResult] = []
        try:
            for policy, group in groupby(pending, key=self._overflow_policy):
                messages = [entry.message for entry in group]
                results += send_each(
                    self._client, messages, overflow=policy, timeout=_NO_WAIT, batch=pending[0].batch
                )
        except BrokerError as error:
            results += [error] * (len(pending) - len(results))
        return results

    def _overflow_policy(self, pending: _Pending) -> Overflow:
        """Return the overflow policy for a message: that of its request, or else of its queue.

        The queue's `block` and `caller_runs` become `reject`, because a request never waits for room. Raises
        `BrokerAway`.
        """
        if pending.overflow is not None:
            return pending.overflow
        queue, item = pending.message.queue, pending.message.contract
        if queue is None and is_celery_task(item):
            return "reject"  # its queue is not known before its application routes it
        try:
            policy = self._client.queues.overflow_policy(queue or contract_from(item).queue)
        except UnknownQueue:
            return "reject"  # the send raises the error again, for this message alone
        return "shed" if policy == "shed" else "reject"

    def _deliver_results(self, messages: list[_Pending], call: "asyncio.Future[list[SendResult]]") -> None:
        """Give each message of a call its outcome, and start the next calls."""
        self._running_calls -= 1
        error = call.exception()
        results: list[SendResult] = call.result() if error is None else [_as_exception(error)] * len(messages)
        for pending, result in zip(messages, results, strict=True):
            if not pending.result.done():  # the future of a cancelled request is cancelled
                pending.result.set_result(result)
        self._start_calls()


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
