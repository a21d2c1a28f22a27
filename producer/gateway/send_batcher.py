"""Gather the single tasks of many requests into few calls to the broker.

The first task is sent at once. Tasks that arrive during its call share the next call. A lone request
therefore waits for no other, and under load the cost of a round trip is shared. Tokens take turns, and so do
the batches of a token. Tasks outside of batches share a call whatever token sent them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Literal

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.producer.celery_tasks import is_celery_task
from millpond.producer.client import Client
from millpond.producer.gateway.problems import api_error
from millpond.producer.message import Message, contract_from
from millpond.producer.send_outcomes import Refused, Sent
from millpond.tasks.errors import BrokerError, MillpondError
from millpond.tasks.pools import Overflow

#: A second concurrent call would take tasks that the first could have carried, and compete for the GIL.
CONCURRENT_CALLS = 1
MESSAGES_A_CALL = 200
MOST_PENDING = 10_000

#: How long a queue's overflow policy is cached.
POLICY_SECONDS = 5.0

_NO_WAIT = timedelta(0)

#: The outcome of a message. An exception instead of `Refused` means that it was not sent, or may have been.
SendResult = Sent | Refused | Exception


def send_each(
    client: Client,
    messages: Sequence[Message],
    *,
    overflow: Overflow | None,
    timeout: timedelta,
    batch: str | None,
) -> Iterator[SendResult]:
    """Yield the outcome of each message, in order, as a value.

    An invalid message does not keep back the others: `Client.send_each` has sent nothing of its chunk when it
    raises, and the rest is then sent one by one.
    """
    done = 0
    try:
        for outcome in client.send_each(messages, overflow=overflow, timeout=timeout, batch=batch):
            done += 1
            yield outcome
    except BrokerError as error:
        for _ in messages[done:]:
            yield error
    except (MillpondError, ValueError) as error:
        if len(messages) - done == 1:
            yield error
            return
        for message in messages[done:]:
            yield from send_each(client, [message], overflow=overflow, timeout=timeout, batch=batch)


class OverflowPolicies:
    """The overflow policies of queues for requests, which never wait for room. Threads share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Literal["reject", "shed"]]] = {}

    def policy_of(self, queue: str) -> Literal["reject", "shed"]:
        """Return the queue's policy: `shed` if the queue sheds, or else `reject`.

        It is kept for `POLICY_SECONDS`. Raises `BrokerAway`.
        """
        until, policy = self._known.get(queue, (0.0, "reject"))
        if time.monotonic() >= until:
            policy = "shed" if limits.read_limits(self._store, queue).overflow == "shed" else "reject"
            self._known[queue] = (time.monotonic() + POLICY_SECONDS, policy)
        return policy


@dataclass(frozen=True, slots=True)
class _Pending:
    """A message that waits to be sent, and the future of its outcome."""

    message: Message
    overflow: Overflow | None
    batch: str | None
    result: "asyncio.Future[SendResult]"


class SendBatcher:
    """Sends single messages in shared calls. One event loop uses it."""

    def __init__(self, client: Client, threads: Executor, policies: OverflowPolicies) -> None:
        self._client = client
        self._threads = threads
        self._policies = policies
        #: By token and then by batch (None: outside of batches). The next token and batch are first.
        self._pending: dict[str, dict[str | None, deque[_Pending]]] = {}
        self._count = 0
        self._calls = 0

    async def send(
        self, message: Message, *, token: str, overflow: Overflow | None, batch: str | None
    ) -> Sent:
        """Send one message. Raises as `Client.send` does, and `ApiError` 503 when too many are pending."""
        if self._count >= MOST_PENDING:
            raise api_error(503, "overloaded", "the gateway has too much to send: try again", retry_after=1)
        result: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        of_token = self._pending.setdefault(token, {})
        of_token.setdefault(batch, deque()).append(_Pending(message, overflow, batch, result))
        self._count += 1
        self._start_calls()
        outcome = await result
        if isinstance(outcome, Sent):
            return outcome
        raise outcome if isinstance(outcome, Exception) else outcome.error

    def _start_calls(self) -> None:
        """Start calls for pending messages while fewer than `CONCURRENT_CALLS` run."""
        while self._pending and self._calls < CONCURRENT_CALLS:
            messages = self._take_messages()
            self._calls += 1
            future = asyncio.get_running_loop().run_in_executor(
                self._threads, partial(self._send_batch, messages)
            )
            future.add_done_callback(partial(self._deliver_results, messages))

    def _take_messages(self) -> list[_Pending]:
        """Take the messages of one call from the batch that waits longest of the token whose turn it is."""
        token = next(iter(self._pending))
        batch = next(iter(self._pending[token]))
        messages = self._take_from_batch(token, batch, MESSAGES_A_CALL)
        if batch is None:
            for other in [each for each, batches in self._pending.items() if None in batches]:
                messages += self._take_from_batch(other, None, MESSAGES_A_CALL - len(messages))
        self._count -= len(messages)
        return messages

    def _take_from_batch(self, token: str, batch: str | None, max_count: int) -> list[_Pending]:
        """Take at most `max_count` messages of one batch.

        The rest of the batch, and of the token, goes to the end.
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

    def _send_batch(self, taken: list[_Pending]) -> list[SendResult]:
        """Send messages of one batch, a run of equal overflow policy at a time."""
        results: list[SendResult] = []
        try:
            for policy, run in groupby(taken, key=self._policy_of):
                messages = [each.message for each in run]
                results += send_each(
                    self._client, messages, overflow=policy, timeout=_NO_WAIT, batch=taken[0].batch
                )
        except BrokerError as error:
            results += [error] * (len(taken) - len(results))
        return results

    def _policy_of(self, pending: _Pending) -> Overflow:
        """Return the overflow policy for a message."""
        if pending.overflow is not None:
            return pending.overflow
        queue, item = pending.message.queue, pending.message.contract
        if queue is None and is_celery_task(item):
            return "reject"  # its application routes it later
        return self._policies.policy_of(queue or contract_from(item).queue)

    def _deliver_results(self, messages: list[_Pending], done: "asyncio.Future[list[SendResult]]") -> None:
        """Give each message of a call its outcome, and start the next calls."""
        self._calls -= 1
        error = done.exception()
        results: list[SendResult] = done.result() if error is None else [_as_exception(error)] * len(messages)
        for pending, result in zip(messages, results, strict=True):
            if not pending.result.done():
                pending.result.set_result(result)
        self._start_calls()


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
