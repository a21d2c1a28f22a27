"""Run a task in the process that sends it, when its queue is full and the policy is `caller_runs`.

The producer is slowed down by the work itself, as in Java's `CallerRunsPolicy`. What is run here is counted,
settled and buried as if the pool had run it; only its time limits do not hold.
"""

import json
import random
import traceback
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from millpond.broker.caller_lease import CallersHold
from millpond.broker.connection import Store
from millpond.broker.consume.fetch_call import buried
from millpond.broker.message import Outgoing
from millpond.broker.outcomes import CANCELLED, GIVEN_BACK, Settlement
from millpond.broker.publish import Full, Given, Outcome, one_call, publish
from millpond.broker.task_state import TaskState
from millpond.producer.backpressure import FlowControl
from millpond.producer.send_outcomes import RanHere
from millpond.producer.server_clock import ServerClock
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract, contract_of
from millpond.tasks.errors import Cancelled, RetryLater
from millpond.tasks.handlers import Body, load_body

#: What a body returned is kept in a batch's results up to this many characters of JSON, as in a worker.
RESULT_LENGTH = 65_536


@dataclass(frozen=True, slots=True)
class Ran:
    """The message was run by the caller."""

    id: str
    how: RanHere


@dataclass(frozen=True)
class CallerRuns:
    """Send to one broker, and run here what does not fit; `kinds` are the modules of further bodies."""

    store: Store
    clock: ServerClock
    kinds: tuple[str, ...] = ()

    def offer(self, messages: Sequence[Outgoing], flow: FlowControl) -> Iterator[Outcome | Ran]:
        """Yield what became of each message, in order. Raises `BodyMissing` before the first is run."""
        known, yielded = dict[int, Outcome | Ran](), 0
        while yielded < len(messages):
            open_ = [i for i in range(yielded, len(messages)) if i not in known]
            some = one_call([messages[i] for i in open_])
            for i, answer in zip(open_, self._answers(some, flow), strict=False):
                if not isinstance(answer, Full) or answer.delayed:
                    known[i] = answer
            while yielded in known:
                yield known.pop(yielded)
                yielded += 1

    def _answers(self, some: list[Outgoing], flow: FlowControl) -> Iterator[Outcome | Ran]:
        if flow.queue_full:
            self._work(some[0])  # what cannot run here is refused before anything is taken
            held = CallersHold(self.store, some[0].queue)
            answers = publish(self.store, some, policy="caller_runs", caller=held.caller)
        else:
            answers = publish(self.store, some, policy="reject")
        flow.queue_full = any(isinstance(answer, Full) and not answer.delayed for answer in answers)
        for message, answer in zip(some, answers, strict=True):
            yield self._run(held, message, answer) if isinstance(answer, Given) else answer

    def _work(self, message: Outgoing) -> tuple[Body, Contract]:
        payload = json.loads(message.payload)
        contract = contract_of(payload["headers"]["task"])
        _args, kwargs, _embed = json.loads(b64decode(payload["body"]))
        return load_body(contract, self.kinds), contract.model_validate(kwargs)

    def _run(self, held: CallersHold, message: Outgoing, given: Given) -> Ran:
        settlement = GIVEN_BACK  # unless it ends, it goes to the pool
        try:
            with held.holding(message, given.token) as cancelled:
                how, settlement = (
                    (RanHere(TaskState.CANCELLED), CANCELLED) if cancelled else self._ended(message)
                )
        finally:
            held.settle(given.token, settlement)
        return Ran(message.id, how)

    def _ended(self, message: Outgoing) -> tuple[RanHere, Settlement]:
        body, job = self._work(message)
        try:
            value = body.function(job, Context(id=message.id, kind=body.kind, batch=message.batch))
            return _succeeded(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
        except RetryLater as later:
            wait = later.after_seconds
            if wait is None:
                wait = random.uniform(0, min(body.backoff_limit_seconds, body.backoff_seconds))
            due_ms = self.clock.now_ms() + int(wait * 1000)
            return RanHere(TaskState.DELAYED, error=_line(later)), Settlement("delay", due_ms=due_ms)
        except Cancelled as cancelled:
            return RanHere(TaskState.CANCELLED, error=_line(cancelled)), CANCELLED
        except Exception as error:
            return RanHere(TaskState.FAILED, error=_line(error)), buried(
                type(error).__name__, _line(error), traceback=traceback.format_exc()[-8_192:], worker="caller"
            )


def _succeeded(value: Any) -> tuple[RanHere, Settlement]:
    text = json.dumps({"value": value}, separators=(",", ":"))
    if len(text) > RESULT_LENGTH:
        raise ValueError(f"the result is {len(text)} characters of JSON and at most {RESULT_LENGTH} are kept")
    return RanHere(TaskState.SUCCEEDED, value=value), Settlement(detail=text)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:1024]
