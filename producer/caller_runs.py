"""Run a task in the process that sends it, when its queue is full and the policy is `caller_runs`.

The producer is slowed down by the work itself, as in Java's `CallerRunsPolicy`. A task that is run here is
counted and settled as if the pool had run it, and becomes a dead letter if it fails. Its time limits do not
apply.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from json import loads
from typing import Any

from millpond.broker.caller_lease import CallerLease
from millpond.broker.connection import Store
from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import NOT_RUN, RELEASE, Cancelled, DeadLetter, Outcome, Retry, Succeeded
from millpond.broker.outgoing import Outgoing
from millpond.broker.publish import Accepted, Answer, Full, HandedToCaller, first_group, publish
from millpond.broker.task_state import TaskState
from millpond.producer.backpressure import FlowControl, send_in_order
from millpond.producer.send_outcomes import RanHere
from millpond.producer.server_clock import ServerClock
from millpond.tasks.context import Context
from millpond.tasks.contract import contract_of
from millpond.tasks.errors import BadContract, HandlerMissing, UnknownKind
from millpond.tasks.execute import execute, validate_job
from millpond.tasks.handlers import Handler, load_handler


@dataclass(frozen=True, slots=True)
class Ran:
    """The message was run by the caller, and `outcome` is how it ended."""

    id: str
    outcome: RanHere


@dataclass(frozen=True)
class CallerRuns:
    """Sends messages to one broker, and runs in this process the tasks for which a queue has no room.

    `kinds` are modules of further handlers. `around` are the `around_executing` hooks of middleware.
    """

    store: Store
    clock: ServerClock
    kinds: tuple[str, ...] = ()
    around: tuple[Callable[..., Any], ...] = ()

    def send_all(self, messages: Sequence[Outgoing], flow: FlowControl) -> Iterator[Answer | Ran]:
        """Yield the outcome of each message, in order. Raises `HandlerMissing`, `BadContract`.

        These refuse a message that would run next and cannot run here. Nothing of it was accepted.
        """
        return send_in_order(messages, lambda unsent: self._send_group(first_group(unsent), flow))

    def _send_group(self, group: list[Outgoing], flow: FlowControl) -> Iterator[Answer | Ran | None]:
        """Yield the replies to the messages of one call, and run each message that the broker hands back.

        The reply is None to a message without room, which is to be sent again. Once a message was refused
        (`flow.queue_full`), the next call asks for a message to run.
        """
        if flow.queue_full:
            self._load_handler(Message.decode(group[0].payload))  # raises before anything is accepted
            lease = CallerLease(self.store, group[0].queue)
            answers = publish(self.store, group, policy="caller_runs", caller=lease.caller)
        else:
            answers = publish(self.store, group, policy="reject")
        flow.queue_full = any(isinstance(answer, Full) and not answer.delayed for answer in answers)
        for message, answer in zip(group, answers, strict=True):
            if isinstance(answer, HandedToCaller):
                yield self._run_here(lease, message, answer)
            else:
                yield None if isinstance(answer, Full) and not answer.delayed else answer

    def _load_handler(self, message: Message) -> Handler:
        """Return the handler that runs a message. Raises `HandlerMissing`, `BadContract`."""
        try:
            contract = contract_of(message.kind)
        except UnknownKind:
            raise HandlerMissing(
                f"{message.kind} is a task of a Celery application, which the caller cannot run: "
                "send it with overflow='block' or 'reject'"
            ) from None
        handler = load_handler(contract, self.kinds)
        args, kwargs, _embed = message.arguments
        validate_job(handler, args, kwargs)
        return handler

    def _run_here(self, lease: CallerLease, outgoing: Outgoing, handed: HandedToCaller) -> Accepted | Ran:
        """Run a message under a lease, settle it, and return how it ended.

        If the run is interrupted, as by Ctrl-C, the message goes to the pool. If its handler cannot run here,
        which was checked for the first message of a call only, the message is accepted and goes there too.
        """
        message = Message.decode(outgoing.payload)
        clock_ms = self.clock.now_ms() - int(time.time() * 1000)
        delivery = Delivery(message, queue=outgoing.queue, clock_ms=clock_ms)
        delivery.token = handed.token
        context = Context(
            id=message.id,
            kind=message.kind,
            batch=message.batch,
            retries=message.retries,
            message=message,
            worker="caller",
        )
        outcome: Outcome = RELEASE
        try:
            with lease.renew_while_running(delivery) as cancelled:
                if cancelled:
                    outcome = NOT_RUN
                else:
                    handler = self._load_handler(message)
                    outcome = execute(handler, delivery, context, self.around, keep_result=True)
        except (HandlerMissing, BadContract):
            return Accepted(message.id)
        finally:
            lease.settle(delivery, outcome)
        return Ran(message.id, _as_ran_here(outcome))


def _as_ran_here(outcome: Outcome) -> RanHere:
    """Return the outcome of a task that the caller ran as the value that the client returns."""
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
