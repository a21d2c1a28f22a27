"""Run a task in the process that sends it, when its queue is full and the policy is `caller_runs`.

The producer is slowed down by the work itself, as in Java's `CallerRunsPolicy`. A task that is run here is
counted, settled and buried as if the pool had run it. Only its time limits do not hold.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from json import loads
from typing import Any

from millpond.broker.caller_lease import CallerLease
from millpond.broker.connection import Store
from millpond.broker.delivery import Delivery
from millpond.broker.message import Message, Outgoing
from millpond.broker.outcomes import NOT_RUN, RELEASE, Cancelled, DeadLetter, Outcome, Retry, Succeeded
from millpond.broker.publish import Answer, Full, HandedToCaller, first_group, publish
from millpond.broker.task_state import TaskState
from millpond.producer.backpressure import FlowControl
from millpond.producer.send_outcomes import RanHere
from millpond.producer.server_clock import ServerClock
from millpond.tasks.context import Context
from millpond.tasks.contract import contract_of
from millpond.tasks.errors import HandlerMissing, UnknownKind
from millpond.tasks.execute import execute, validate_job
from millpond.tasks.handlers import Handler, load_handler


@dataclass(frozen=True, slots=True)
class Ran:
    """The message was run by the caller."""

    id: str
    how: RanHere


@dataclass(frozen=True)
class CallerRuns:
    """Sends to one broker, and runs here the tasks that do not fit.

    `kinds` are modules of further handlers.
    """

    store: Store
    clock: ServerClock
    kinds: tuple[str, ...] = ()
    around: tuple[Callable[..., Any], ...] = ()

    def run_all(self, messages: Sequence[Outgoing], flow: FlowControl) -> Iterator[Answer | Ran]:
        """Yield the outcome of each message, in order. Raises `HandlerMissing` before the first is run."""
        answers, yielded = dict[int, Answer | Ran](), 0
        while yielded < len(messages):
            open_ = [i for i in range(yielded, len(messages)) if i not in answers]
            some = first_group([messages[i] for i in open_])
            for i, answer in zip(open_, self._offer_chunk(some, flow), strict=False):
                if not isinstance(answer, Full) or answer.delayed:
                    answers[i] = answer
            while yielded in answers:
                yield answers.pop(yielded)
                yielded += 1

    def _offer_chunk(self, some: list[Outgoing], flow: FlowControl) -> Iterator[Answer | Ran]:
        """Yield the replies for a chunk. Run here each message that the broker returns to the caller."""
        if flow.queue_full:
            self._prepare_delivery(some[0])  # a task that cannot run here is refused before anything is taken
            lease = CallerLease(self.store, some[0].queue)
            answers = publish(self.store, some, policy="caller_runs", caller=lease.caller)
        else:
            answers = publish(self.store, some, policy="reject")
        flow.queue_full = any(isinstance(answer, Full) and not answer.delayed for answer in answers)
        for message, answer in zip(some, answers, strict=True):
            yield self._run_here(lease, message, answer) if isinstance(answer, HandedToCaller) else answer

    def _prepare_delivery(self, message: Outgoing) -> tuple[Handler, Delivery]:
        """Return the handler and the delivery of a message. Raises `HandlerMissing`, `BadContract`."""
        delivery = Delivery(
            Message.decode(message.payload),
            queue=message.queue,
            clock_ms=self.clock.now_ms() - int(time.time() * 1000),
        )
        kind = delivery.message.kind
        try:
            contract = contract_of(kind)
        except UnknownKind:
            raise HandlerMissing(
                f"{kind} is a task of a Celery application, which the caller cannot run: send it with "
                "overflow='block' or 'reject'"
            ) from None
        handler = load_handler(contract, self.kinds)
        args, kwargs, _embed = delivery.message.arguments
        validate_job(handler, args, kwargs)
        return handler, delivery

    def _run_here(self, lease: CallerLease, message: Outgoing, handed: HandedToCaller) -> Ran:
        """Run a message under a lease, settle it, and return how it ended."""
        handler, delivery = self._prepare_delivery(message)
        delivery.token = handed.token
        about = delivery.message
        context = Context(
            id=about.id,
            kind=about.kind,
            batch=about.batch,
            retries=about.retries,
            message=about,
            worker="caller",
        )
        outcome: Outcome = RELEASE  # unless it ends, it goes to the pool
        try:
            with lease.renew_while_running(delivery) as cancelled:
                if cancelled:
                    outcome = NOT_RUN
                else:
                    outcome = execute(handler, delivery, context, self.around, keep_result=True)
        finally:
            lease.settle(delivery, outcome)
        return Ran(about.id, _describe_outcome(outcome))


def _describe_outcome(outcome: Outcome) -> RanHere:
    """Return how a task ended that the caller ran."""
    match outcome:
        case Succeeded(result):
            return RanHere(TaskState.SUCCEEDED, value=loads(result or "{}").get("value"))
        case Retry(error=error):
            return RanHere(TaskState.DELAYED, error=error)
        case Cancelled(error=error):
            return RanHere(TaskState.CANCELLED, error=error)
        case DeadLetter(error=error):
            return RanHere(TaskState.FAILED, error=error)
    raise AssertionError(f"a handler cannot end in {outcome!r} here")
