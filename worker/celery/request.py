"""One delivery on its way through the pool: what Celery calls a request.

Celery's own reads every header, publishes a retry before it acknowledges, and forgets how a task ended.
Here the outcome travels with the acknowledgement, so that the broker counts a batch, keeps a dead letter or
replaces a message by its retry in the same step that settles the message.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from os import getpid
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated
from celery.exceptions import InvalidTaskError, TaskRevokedError, WorkerLostError
from celery.platforms import signals
from celery.worker.request import Request
from celery.worker.state import revoked, revoked_stamps, task_ready

from millpond.broker.consume.in_flight import Holder
from millpond.broker.delivery import Delivery
from millpond.broker.message import SHOWN_LENGTH, BadMessage
from millpond.broker.outcomes import (
    NOT_RUN,
    REDELIVER,
    REJECTED,
    RELEASE,
    SUCCEEDED,
    Cancelled,
    Continued,
    DeadLetter,
    Expired,
    Outcome,
    Redeliver,
    Retry,
    Succeeded,
)
from millpond.tasks.contract import Contract
from millpond.tasks.execute import error_line
from millpond.tasks.middleware import Middleware
from millpond.tasks.redaction import redact, redact_args, scrubbed, secrets_in
from millpond.worker.celery.handover import write_at_once
from millpond.worker.celery.slot import Answer, request_of, run
from millpond.worker.completer import Settler
from millpond.worker.dispatch.chunk_job import Piece
from millpond.worker.dispatch.chunks import Grouper
from millpond.worker.dispatch.thread_pool import Pull
from millpond.worker.report.event_sampling import ORDINARY, Sample
from millpond.worker.report.task_metrics import Meter, State

logger = logging.getLogger(__name__)

#: How a task ends whose child was killed because somebody asked for it.
ENDED = Cancelled("ended while it ran")

#: How a run counts, by its outcome; what is not here is none.
_STATES: dict[type[Any], State] = {
    Succeeded: "succeeded",
    DeadLetter: "failed",
    Retry: "retried",
    Continued: "retried",
    Cancelled: "cancelled",
    Redeliver: "lost",
}


@dataclass
class Process:
    """What the requests of one worker process share."""

    app: Any
    hostname: str
    eventer: Any
    in_flight: Holder
    completer: Settler
    chunks: Grouper
    meter: Meter
    sample: Sample
    threads: Pull | None
    sends_events: bool
    #: Whether `worker_deduplicate_successful_tasks` is set, for which Celery keeps the ids of what succeeded.
    remembers_successes: bool
    connection_errors: tuple[type[BaseException], ...]
    #: Middleware that is told of outcomes.
    on_outcome: tuple[Middleware, ...] = ()


class PondRequest(Request):
    """Celery's request, made of a delivery; what of it only Celery asks for is made when it does."""

    #: It was sent to a prefork child: it counts as started.
    in_child = False
    #: The chunk whose child it shares, if it shares one.
    piece: Piece | None = None
    #: It was released or dropped: its handler must not start.
    let_go = False
    #: How `acknowledge` settles it.
    ending: Outcome = SUCCEEDED
    #: When it was received, where it was left out of the sample of events (seconds since 1970).
    left_out_at: float | None = None
    start_told = False
    measured = False
    #: How long the handler ran, seconds; None: it did not.
    seconds: float | None = None
    acknowledged: bool

    def __init__(self, delivery: Delivery, kombu_message: Any, task: Any, process: Process) -> None:
        message = delivery.message
        headers = message.headers
        if not isinstance(headers.get("id"), str):
            raise InvalidTaskError("its id must be a text")
        self.delivery, self.process = delivery, process
        self.id, self.name, self._type = message.id, message.name, message.kind
        self.time_limits = message.time_limits
        self._message, self._task, self._app = kombu_message, task, process.app
        self._eventer, self._hostname = process.eventer, process.hostname
        self._connection_errors = process.connection_errors
        self._on_ack, self._on_reject = kombu_message.ack_log_error, kombu_message.reject_log_error
        self._eta = self._expires = None
        if headers.get("expires") is not None:
            self._expires = datetime.fromtimestamp((message.expires_ms or 0) / 1000, UTC)
        self._argsrepr, self._kwargsrepr = headers.get("argsrepr", ""), headers.get("kwargsrepr", "")
        self._ignore_result = headers.get("ignore_result", task.ignore_result)
        #: The contract, where it hides fields.
        self.secretive: type[Contract] | None = task.secretive
        if self.secretive is not None:
            self._hide(self.secretive)

    # What Celery asks for

    @cached_property
    def _request_dict(self) -> dict[str, Any]:
        request = request_of(self.delivery, self._hostname)
        args, kwargs, _embed = self._payload
        return {
            **request,
            "argsrepr": self._argsrepr,
            "kwargsrepr": self._kwargsrepr,
            "args": args,
            "kwargs": kwargs,
        }

    @cached_property
    def _payload(self) -> Any:
        return self.delivery.message.arguments

    @property
    def _args(self) -> Any:
        return self._payload[0]

    @property
    def _kwargs(self) -> Any:
        return self._payload[1]

    @cached_property
    def _delivery_info(self) -> Any:
        return self._request_dict["delivery_info"]

    @property
    def _root_id(self) -> Any:
        return self.delivery.message.headers.get("root_id")

    @property
    def _parent_id(self) -> Any:
        return self.delivery.message.headers.get("parent_id")

    def maybe_expire(self) -> bool:
        """Mark an expired task as revoked, as Celery has it; by the server's clock."""
        if self.delivery.has_expired:
            revoked.add(self.id)
            return True
        return False

    def revoked(self) -> bool:
        """True if the task must not start: it has expired, or somebody revoked it by remote control."""
        if self._expires is None and not revoked_stamps and self.id not in revoked:
            return bool(self._already_revoked)
        return bool(super().revoked())

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe the request for remote control, arguments always as they may be shown."""
        del safe
        return dict(super().info(safe=True))

    # Starting

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to the pool. Raises Celery's `TaskRevokedError` when it must not start any more."""
        if self.revoked():
            raise TaskRevokedError(self.id)
        process = self.process
        if process.threads is not None:
            process.threads.put(self)
            return None
        if not self.may_start():
            self.give_back()
            raise TaskRevokedError(self.id)
        if not pool.uses_semaphore:
            return self._apply(pool, self._run_if_still_wanted)
        piece = process.chunks.piece_for(self, pool._pool._putlock)
        self.in_child = True
        result = self._apply(pool, run) if piece is None else piece.send(pool)
        write_at_once(pool, process.completer.hub)
        return result

    def _apply(self, pool: Any, function: Callable[..., Any]) -> Any:
        hard, soft = self.limits
        return pool.apply_async(
            function,
            args=(self.delivery,),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
        )

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Return the hard and the soft time limit, in seconds: the message's own, or else its kind's."""
        hard, soft = self.time_limits
        return hard or self._task.time_limit, soft or self._task.soft_time_limit

    @property
    def started(self) -> bool:
        """True if the handler runs, or is about to."""
        return self.in_child or self.time_start is not None

    def may_start(self) -> bool:
        """True if the pool still takes work and the message is still this process's."""
        in_flight, delivery = self.process.in_flight, self.delivery
        given_up = (
            self.let_go or in_flight.starts_nothing or (self._expires is not None and delivery.has_expired)
        )
        return not (given_up or in_flight.is_lost(delivery) or in_flight.is_cancelled(delivery))

    def run_in_thread(self) -> None:
        """Run in the calling thread, from its start to its settlement."""
        if not self.may_start():  # it had to wait for its slot
            self.give_back()
            return
        self.on_accepted(getpid(), time.monotonic())
        self.on_success(run(self.delivery))
        self.process.completer.let_catch_up()

    def _run_if_still_wanted(self, delivery: Delivery) -> Answer:
        return run(delivery) if self.may_start() else (RELEASE, 0.0, 0.0)

    def give_back(self) -> None:
        """Return the message to the head of its queue, no delivery counted; drop it if it is of no use."""
        self.let_go = True
        task_ready(self)
        if self.process.in_flight.is_cancelled(self.delivery):
            self._finish(NOT_RUN)
        else:
            self._finish(Expired() if self.delivery.has_expired else RELEASE)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the handler, by killing its child; it counts as cancelled once the child is gone.

        Celery would count it while it may still run, and whether or not the signal ends it. Where the child
        is with another task, this one has ended, or is taken back and does not start any more.
        """
        number = signals.signum(signal or "KILL")
        if not self.process.chunks.has_its_child(self):
            return
        if self.time_start:
            pool.terminate_job(self.worker_pid, number)
        else:
            self._terminate_on_ack = pool, number

    # Ending

    def on_success(self, answer: Any, **_: Any) -> None:
        """Settle a task whose slot has answered, however it ended."""
        if not isinstance(answer, tuple):
            self.on_failure(answer)
            return
        outcome, seconds, used = answer
        process = self.process
        process.meter.used.append(used)
        if outcome is RELEASE or type(outcome) not in _STATES:
            self.give_back() if type(outcome) is type(RELEASE) else self._finish(outcome)
            return
        process.chunks.learn(self._type, seconds)
        self._measure(_STATES[type(outcome)], seconds)
        task_ready(self, successful=process.remembers_successes and type(outcome) is Succeeded)
        self._finish(outcome)
        if process.sends_events:
            self._tell(outcome, seconds)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Settle a task whose slot was lost before it answered."""
        del send_failed_event, return_ok
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if isinstance(error, Terminated):
            self._measure("cancelled")
            task_ready(self)
            self.ending = ENDED
            if not self._already_cancelled and not self._already_revoked:
                self._announce_revoked("terminated", True, str(error), False)
        elif isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            self.hand_out_again(exc_info)
        else:
            self._measure("failed")
            task_ready(self)
            line = error_line(error, self._scrubbed)
            trace = self._scrubbed(str(exc_info.traceback or ""))
            self._finish(
                DeadLetter(type(error).__name__, line, {"traceback": trace, "worker": self._hostname})
            )
            self.send_event("task-failed", exception=line, traceback=trace)
            logger.error("Task %s[%s] failed in its slot: %s\n%s", self.name, self.id, line, trace)

    def hand_out_again(self, exc_info: Any) -> None:
        """Let the message be delivered again, the delivery counted: its slot was lost before it answered."""
        if self.acknowledged:
            return
        task_ready(self)
        self._measure("lost")
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        self._finish(REDELIVER)
        logger.warning(
            "Task %s[%s] goes back to its queue: %s", self.name, self.id, self._scrubbed(str(error))
        )

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Settle a task whose time limit ran out; its process is killed after this."""
        if not soft:
            self._measure("failed")
            error = f"ran for more than {timeout} s, its hard time limit"
            self.ending = DeadLetter("time limit", error)
        super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not terminated:
            self.ending = Expired() if expired else NOT_RUN
        super()._announce_revoked(reason, terminated, signum, expired)

    def acknowledge(self) -> None:
        """Settle the delivery by its `ending`; Celery says that it may go."""
        self._finish(self.ending)

    def reject(self, requeue: bool = False) -> None:
        """Bury the message, or let it be delivered again."""
        if not self.acknowledged:
            self._finish(REDELIVER if requeue else REJECTED)
            self.send_event("task-rejected", requeue=requeue)

    def _finish(self, outcome: Outcome) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            if isinstance(outcome, DeadLetter):
                self.process.meter.errors.append((self._type, outcome.reason))
            for each in self.process.on_outcome:
                try:
                    each.on_outcome(self.delivery, outcome, self.seconds)
                except Exception:  # the outcome stands, whatever becomes of it here
                    logger.exception("middleware %s failed on an outcome", type(each).__name__)
            self.process.completer.finish(self.delivery, outcome)

    def _measure(self, state: State, seconds: float | None = None) -> None:
        """Note how the run ended, how long the message had waited, and how long the handler took."""
        start = self.time_start
        if start is None or self.measured:
            return
        self.measured = True
        delivery = self.delivery
        since_ms = delivery.ready_ms
        wait = None if since_ms is None else start + (delivery.clock_ms - since_ms) / 1000
        took = self.seconds = time.time() - start if seconds is None else seconds
        # By its type: a sender may give every task a name of its own (Celery's `shadow`).
        self.process.meter.ended.append((self._type, state, wait, took))

    # Showing

    def _tell(self, outcome: Outcome, seconds: float) -> None:
        match outcome:
            case Succeeded(shown=shown):
                self.send_event("task-succeeded", result=shown, runtime=seconds)
            case Retry(error=error) | Continued(error=error):
                self.send_event("task-retried", exception=error, traceback=outcome.traceback)
            case DeadLetter(error=error) if outcome is not REJECTED:
                self.send_event("task-failed", exception=error, traceback=outcome.traceback)
            case DeadLetter() | Redeliver():
                self.send_event("task-rejected", requeue=outcome is not REJECTED)

    def announce(self) -> None:
        """Tell that it was received, if it is chosen for the sample of events."""
        if self.process.sample.admits():
            self._tell_received()
        else:
            self.left_out_at = time.time()

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event, if the task is in the sample or something is wrong; `fields` are free of secrets."""
        if self.left_out_at is not None:
            if type in ORDINARY:
                if type == "task-succeeded":
                    self.process.sample.note("left_out")
                return
            received_at, self.left_out_at = self.left_out_at, None
            self._tell_received(timestamp=received_at)
            if self.time_start is not None:
                self.start_told = True
                self._eventer.send("task-started", uuid=self.id, timestamp=self.time_start)
        if type == "task-started":
            if self.start_told:  # one that was taken back from a prefork child starts again
                return
            self.start_told = True
        super().send_event(type, **fields)

    def _tell_received(self, **more: Any) -> None:
        self._eventer.send(
            "task-received",
            uuid=self.id,
            name=self.name,
            args=self._argsrepr,
            kwargs=self._kwargsrepr,
            root_id=self._root_id,
            parent_id=self._parent_id,
            retries=self.delivery.message.retries,
            eta=None,
            expires=self._expires and self._expires.isoformat(),
            **more,
        )
        self.process.sample.note("shown")

    def _hide(self, contract: type[Contract]) -> None:
        """Redact what may be shown of the arguments; a stock client put them all into the headers."""
        try:
            args, kwargs, _embed = self.delivery.message.arguments
        except BadMessage as error:
            raise InvalidTaskError(str(error)) from error
        self._kwargsrepr = repr(redact(contract, kwargs))[:SHOWN_LENGTH]
        self._argsrepr = redact_args(contract, args)

    def _scrubbed(self, text: str) -> str:
        return (
            text if self.secretive is None else scrubbed(text, secrets_in(self.secretive, *self._payload[:2]))
        )
