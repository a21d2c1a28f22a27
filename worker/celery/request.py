"""One delivery on its way through the pool: Celery's name for it is a request.

The outcome travels with the acknowledgement, so that the broker counts a batch, keeps a dead letter or
replaces a message by its retry in the same step that settles the message.
"""

import logging
import time
from collections.abc import Callable
from os import getpid
from sys import modules
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated
from celery.exceptions import Reject, TaskRevokedError, WorkerLostError
from celery.platforms import signals
from celery.worker.state import task_ready

from millpond.broker.celery.request import DeliveryRequest, immediate_writer
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery, delivery_fields
from millpond.broker.errors import DeadLettered
from millpond.broker.outcomes import (
    NOT_RUN,
    REDELIVER,
    REJECTED,
    RELEASE,
    REQUEUE,
    SUCCEEDED,
    Cancelled,
    Continued,
    DeadLetter,
    Expired,
    Outcome,
    Redeliver,
    Release,
    Requeue,
    Retry,
    Succeeded,
)
from millpond.tasks.contract import Contract
from millpond.tasks.execute import error_line
from millpond.tasks.process.spans import SDK
from millpond.tasks.redaction import scrub, secrets_in
from millpond.worker.celery.slot import SlotResult, run, run_in_child
from millpond.worker.dispatch.chunk_job import ChunkJob
from millpond.worker.dispatch.chunks import WEIGHT, Chunks
from millpond.worker.dispatch.thread_pool import ThreadSlots

logger = logging.getLogger(__name__)

#: The outcome of a task whose child was killed on request.
ENDED = Cancelled("ended while it ran")

#: Events of a task without a fault. Any other event is sent even if the task is not in the sample.
ORDINARY = frozenset(("task-started", "task-succeeded"))


class RequestContext:
    """The services that all requests of one kind in one worker process share."""

    def __init__(self, consumer: Any, task: Any) -> None:
        self.app, self.hostname, self.eventer = consumer.app, consumer.hostname, consumer.event_dispatcher
        self.in_flight: InFlightMessages = consumer.in_flight
        self.chunks: Chunks = consumer.chunks
        self.threads: ThreadSlots | None = consumer.threads
        self.sends_events = bool(self.eventer and self.eventer.enabled and task.send_events)
        #: For `worker_deduplicate_successful_tasks`, Celery keeps the ids of tasks that succeeded.
        self.remembers_successes = bool(consumer.app.conf.worker_deduplicate_successful_tasks)
        #: The calls of middleware at an outcome, without OpenTelemetry in this process and with it.
        self.on_outcome = tuple(hooks.on_outcome for hooks in consumer.app.hooks)
        self.shows_events = consumer.app.hooks[0].shows_events
        self.write_at_once = immediate_writer(consumer.pool, consumer.hub)


class PondRequest(DeliveryRequest):
    """Celery's request, which settles its delivery by an outcome."""

    #: It was sent to a prefork child: it counts as started.
    in_child = False
    #: The chunk whose child it shares, if it shares one.
    chunk: ChunkJob | None = None
    #: How `acknowledge` settles it.
    ending: Outcome = SUCCEEDED
    #: The time of its receipt if it is not in the sample of events (seconds since 1970).
    left_out_at: float | None = None

    process: RequestContext
    #: The contract if it hides fields, else None.
    contract_with_secrets: type[Contract] | None = None

    # Starting

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to the pool. Raises Celery's `TaskRevokedError` when it must not start any more."""
        process = self.process
        if (self.can_expire or process.threads is None) and self.revoked():
            raise TaskRevokedError(self.id)
        if process.threads is not None:
            process.threads.put(self)
            return None
        if not self.may_start():
            self.release()
            raise TaskRevokedError(self.id)
        if not pool.uses_semaphore:
            return self._apply_to_pool(pool, self._run_if_still_wanted, (self.delivery,))
        chunk = process.chunks.job_for(self)
        self.in_child = True
        result = (
            chunk.send(pool)
            if chunk
            else self._apply_to_pool(pool, run_in_child, delivery_fields(self.delivery))
        )
        process.write_at_once()
        return result

    def _apply_to_pool(self, pool: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Pass the task to the pool with its time limits and callbacks."""
        hard, soft = self.limits
        return pool.apply_async(
            function,
            args=args,
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
        )

    @property
    def started(self) -> bool:
        """True if the handler runs, or is about to."""
        return self.in_child or self.time_start is not None

    def may_start(self) -> bool:
        """True if the pool still takes work and the message is still this process's."""
        if self.acknowledged or (self.can_expire and self.delivery.has_expired):
            return False
        return self.process.in_flight.may_start(self.delivery)

    def run_in_thread(self) -> None:
        """Run in the calling thread, from its start to its settlement."""
        if not self.may_start():  # it had to wait for its slot
            self.release()
            return
        self.on_accepted(getpid(), time.monotonic())
        self.on_success(run(self.delivery))

    def _run_if_still_wanted(self, delivery: Delivery) -> SlotResult:
        return run(delivery) if self.may_start() else (RELEASE, 0.0, 0.0)

    def release(self) -> None:
        """Release the message. A task that was cancelled or has expired is settled as such."""
        if self.acknowledged:
            return
        if self.process.in_flight.is_cancelled(self.delivery):
            self.mark_revoked("revoked")
            self._finish(NOT_RUN)
        elif self.delivery.has_expired:
            self.mark_revoked("expired")
            self._finish(Expired())
        else:
            self._finish(RELEASE)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the handler by killing its child. The task counts as cancelled once the child is gone.

        Celery would count it while it may still run, and whether or not the signal ends it. Where the child
        is with another task, this one has ended, or is taken back and does not start any more.
        """
        number = signals.signum(signal or "KILL")
        if not self.process.chunks.owns_its_child(self):
            return
        if self.time_start:
            pool.terminate_job(self.worker_pid, number)
        else:
            self.terminate_when_accepted(pool, number)

    # Ending

    def on_success(self, result: Any, **_: Any) -> None:
        """Settle a task with the result of its slot."""
        if not isinstance(result, tuple):
            self.on_failure(result)
            return
        outcome, seconds, used = result
        if type(outcome) is Release:  # it was not wanted any more when its slot came to it
            self.undo_start()
            self.release()
            return
        if type(outcome) is DeadLetter and outcome == REJECTED:  # Celery's tracer leaves it to its request
            self.mark_failed(Reject(outcome.error))
        process = self.process
        if process.threads is None:
            mean = process.chunks.mean_seconds
            mean[self.kind] += WEIGHT * (seconds - mean[self.kind])
        self.delivery.cpu_seconds = used
        self._finish(outcome, seconds)
        if process.sends_events and (self.left_out_at is None or type(outcome) is not Succeeded):
            self._send_end_event(outcome, seconds)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Settle a task whose slot was lost before it returned a result."""
        del send_failed_event, return_ok
        error = _unwrap_error(exc_info)
        if isinstance(error, Terminated):
            self.ending = ENDED
            self.announce_terminated(str(error))
        elif isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            self.redeliver(exc_info)
        elif not self.acknowledged:  # a task that ran into its hard limit is
            line = error_line(error, self._scrub_secrets)
            trace = self._scrub_secrets(str(exc_info.traceback or ""))
            self.mark_failed(error if self.contract_with_secrets is None else DeadLettered(line), trace)
            about = {"traceback": trace, "worker": self.hostname}
            self._finish(DeadLetter(type(error).__name__, line, about))
            self.send_event("task-failed", exception=line, traceback=trace)
            logger.error("Task %s[%s] failed in its slot: %s\n%s", self.name, self.id, line, trace)

    def redeliver(self, exc_info: Any) -> None:
        """Redeliver the message: its slot was lost before it returned a result."""
        if not self.acknowledged:
            why = error_line(_unwrap_error(exc_info), self._scrub_secrets)
            self._finish(REDELIVER)
            logger.warning("Task %s[%s] goes back to its queue: %s", self.name, self.id, why)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Settle a task whose time limit ran out. Its process is killed after this."""
        if not soft:
            self.ending = DeadLetter("time limit", f"ran for more than {timeout} s, its hard time limit")
        super().on_timeout(soft, timeout)

    def settle_revoked(self, *, expired: bool) -> None:
        """Count a task that Celery revoked as expired or as cancelled."""
        self.ending = Expired() if expired else NOT_RUN

    def acknowledge(self) -> None:
        """Settle the delivery by its `ending`, now that Celery acknowledges it."""
        self._finish(self.ending)

    def reject(self, requeue: bool = False) -> None:
        """Dead-letter the message, or put it at the back of its queue."""
        if not self.acknowledged:
            self._finish(REQUEUE if requeue else REJECTED)
            self.send_event("task-rejected", requeue=requeue)

    def _finish(self, outcome: Outcome, seconds: float | None = None) -> None:
        """End the request, once: nothing counts it as running any more, and its delivery is settled."""
        if self.acknowledged:
            return
        process, delivery, started_at = self.process, self.delivery, self.time_start
        delivery.started_at = started_at
        if seconds is None and started_at is not None:
            seconds = time.time() - started_at
        self.acknowledged = True
        task_ready(self, successful=process.remembers_successes and type(outcome) is Succeeded)
        for hook in process.on_outcome[SDK in modules]:
            try:
                hook(delivery, outcome, seconds)
            except Exception:  # an error here does not change the outcome
                _log_failed_hook(hook, "on an outcome")
        process.in_flight.finish(delivery, outcome)

    # Showing

    def _send_end_event(self, outcome: Outcome, seconds: float) -> None:
        """Send Celery's event for how the task ended."""
        match outcome:
            case Succeeded(shown=shown):
                self.send_event("task-succeeded", result=shown, runtime=seconds)
            case Retry(error=error, traceback=trace) | Continued(error=error, traceback=trace):
                self.send_event("task-retried", exception=error, traceback=trace)
            case DeadLetter(error=error) if outcome is not REJECTED:
                self.send_event("task-failed", exception=error, traceback=outcome.traceback)
            case DeadLetter() | Redeliver() | Requeue():
                self.send_event("task-rejected", requeue=outcome is not REJECTED)

    def send_received_event(self) -> None:
        """Send the event that it was received, if it is chosen for the sample of events."""
        for shows_events in self.process.shows_events:
            try:
                if shows_events(self.delivery):
                    continue
            except Exception:
                _log_failed_hook(shows_events, "as a task arrived")
                continue
            self.left_out_at, self.is_quiet = time.time(), True
            self.delivery.events_shown = False
            return
        self._send_received_event()

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event if the task is in the sample or has failed. `fields` are free of secrets."""
        if self.left_out_at is not None:
            if type in ORDINARY:
                return
            received_at, self.left_out_at = self.left_out_at, None
            self._send_received_event(timestamp=received_at)
            if self.time_start is not None:
                self.eventer.send("task-started", uuid=self.id, timestamp=self.time_start)
        if type == "task-started":
            self.is_quiet = True  # one that was taken back from a prefork child starts again
        super().send_event(type, **fields)

    def _send_received_event(self, **more: Any) -> None:
        """Send Celery's event that the task was received. `more` are further fields."""
        headers = self.delivery.message.headers
        self.eventer.send(
            "task-received",
            uuid=self.id,
            name=self.name,
            args=self.argsrepr,
            kwargs=self.kwargsrepr,
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries", 0),
            eta=headers.get("eta"),
            expires=self.expires and self.expires.isoformat(),
            **more,
        )
        self.delivery.events_shown = True

    def _scrub_secrets(self, text: str) -> str:
        """Return a text without the secrets of this task."""
        if self.contract_with_secrets is None:
            return text
        args, kwargs, _embed = self.delivery.message.arguments
        return scrub(text, secrets_in(self.contract_with_secrets, args, kwargs))


def _log_failed_hook(hook: Any, when: str) -> None:
    logger.exception("middleware %s failed %s", type(hook.__self__).__name__, when)


def _unwrap_error(exc_info: Any) -> BaseException:
    """Return the error, without the text of its traceback that a child sends along."""
    error = exc_info.exception
    unwrapped: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return unwrapped
