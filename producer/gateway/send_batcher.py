"""Send what many requests bring at once in few calls to the broker.

The first task leaves at once; those that come while it is under way leave together, in the next call. So
a lone request waits for nobody, and under load the cost of a round trip is shared.
"""

import asyncio
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby

from millpond.producer.client import Client
from millpond.producer.gateway.overflow import Policies
from millpond.producer.gateway.problems import refusal
from millpond.producer.gateway.stream_outcomes import Carried, carry
from millpond.producer.message import Message, contract_from
from millpond.producer.send_outcomes import Sent
from millpond.tasks.errors import BrokerError
from millpond.tasks.pools import Overflow

#: A second call would take from the first what it could have carried, and the interpreter's lock.
CALLS_AT_ONCE = 1
MESSAGES_A_CALL = 200
MOST_WAITING = 10_000

_NO_WAIT = timedelta(0)


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    overflow: Overflow | None
    batch: str | None
    outcome: "asyncio.Future[Carried]"


class Coalescing:
    """Send single messages; belongs to one event loop. A full queue is never waited for."""

    def __init__(self, client: Client, threads: Executor, policies: Policies) -> None:
        self._client = client
        self._threads = threads
        self._policies = policies
        #: By batch, and None for those that are of none.
        self._waiting: dict[str | None, deque[_Waiting]] = {}
        self._count = 0
        self._under_way = 0

    async def send(self, message: Message, *, overflow: Overflow | None, batch: str | None) -> Sent:
        """Send one message; raises what `Client.send` does, and `Refusal` when too many wait already."""
        if self._count >= MOST_WAITING:
            raise refusal(503, "overloaded", "the gateway has too much to send: try again", retry_after=1)
        outcome: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(message, overflow, batch, outcome)
        self._waiting.setdefault(batch, deque()).append(waiting)
        self._count += 1
        self._leave()
        carried = await outcome
        if isinstance(carried, Sent):
            return carried
        raise carried if isinstance(carried, Exception) else carried.error

    def _leave(self) -> None:
        """Let messages leave as long as there are any and a call is free."""
        while self._waiting and self._under_way < CALLS_AT_ONCE:
            alike = self._alike()
            call = partial(self._carry, alike)
            self._under_way += 1
            future = asyncio.get_running_loop().run_in_executor(self._threads, call)
            future.add_done_callback(partial(self._arrived, alike))

    def _alike(self) -> list[_Waiting]:
        """Take what one call can carry of the batch that waits longest; its rest goes behind the others."""
        batch = next(iter(self._waiting))
        line = self._waiting.pop(batch)
        alike = [line.popleft() for _ in range(min(len(line), MESSAGES_A_CALL))]
        if line:
            self._waiting[batch] = line
        self._count -= len(alike)
        return alike

    def _carry(self, waiting: list[_Waiting]) -> list[Carried]:
        """Send messages of one batch, run by run of those that a full queue treats alike."""
        carried: list[Carried] = []
        try:
            for policy, run in groupby(waiting, key=self._policy):
                messages = [each.message for each in run]
                batch = waiting[0].batch
                carried += carry(self._client, messages, overflow=policy, timeout=_NO_WAIT, batch=batch)
        except BrokerError as error:
            carried += [error] * (len(waiting) - len(carried))
        return carried

    def _policy(self, waiting: _Waiting) -> Overflow:
        if waiting.overflow is not None:
            return waiting.overflow
        return self._policies.of(waiting.message.queue or contract_from(waiting.message.contract).queue)

    def _arrived(self, waiting: list[_Waiting], done: "asyncio.Future[list[Carried]]") -> None:
        self._under_way -= 1
        error = done.exception()
        outcomes: list[Carried] = done.result() if error is None else [_surprise(error)] * len(waiting)
        for each, outcome in zip(waiting, outcomes, strict=True):
            if not each.outcome.done():
                each.outcome.set_result(outcome)
        self._leave()


def _surprise(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
