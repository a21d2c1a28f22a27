"""One delivery on its way through the pool: Celery's name for it is a request.

A request starts its task in a slot, settles the delivery by the outcome, and sends the events of the task.
In the same step the broker counts its batch, keeps a dead letter, or replaces the message by its retry.
"""

import logging
import time
from collections.abc import Callable
from os import getpid
from sys import modules
from typing import Any

from billiard.exceptions import Terminated, TimeLimitExceeded
from celery.exceptions import Reject, TaskRevokedError, WorkerLostError
from celery.platforms import signals
from celery.worker.state import task_ready

from millpond.broker.celery.request import DeliveryRequest, unwrap_error
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
from millpond.tasks.middleware import hook_name
from millpond.tasks.process.spans import SDK
from millpond.tasks.redaction import scrub_secrets
from millpond.worker.celery.kind_services import KindServices
from millpond.worker.celery.slot import SlotResult, run_delivery, run_in_child
from millpond.worker.dispatch.chunk_job import ChunkJob
from millpond.worker.dispatch.chunks import WEIGHT

logger = logging.getLogger(__name__)

#: The outcome of a task whose child was killed on request.
TERMINATED = Cancelled("ended while it ran")

#: The events that are not sent of a task outside the sample of events. Its other events are sent.
QUIET_EVENTS = frozenset(("task-started", "task-succeeded"))


class PondRequest(DeliveryRequest):
    """Celery's request, which settles its delivery by an outcome."""

    #: True once the task was sent to a prefork child: it counts as started.
    in_child = False
    #: The chunk in which the task was sent, None if it was sent alone.
    chunk: ChunkJob | None = None
    #: The outcome by which `acknowledge` settles the delivery.
    ending: Outcome = SUCCEEDED
    #: The signal by which its child was told to end, None if it was not.
    kill_signal: int | None = None
    #: When the task was received (seconds since 1970) if it is not in the sample of events, else None.
    unsampled_since: float | None = None

    services: KindServices
    #: The contract if it hides fields, else None.
    contract_with_secrets: type[Contract] | None = None

    # Starting

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Pass the task to the pool: to a thread, or to a child, alone or in a chunk.

        Return the pool's `ApplyResult`, None for a thread. Raises Celery's `TaskRevokedError` if the task was
        cancelled, has expired, or may not start any more.
        """
        services = self.services
        if (self.can_expire or services.threads is None) and self.revoked():
            raise TaskRevokedError(self.id)
        if services.threads is not None:
            services.threads.submit(self)
            return None
        if not self.may_start():
            self.release()
            raise TaskRevokedError(self.id)
        if not pool.uses_semaphore:
            return self._apply_to_pool(pool, self._run_or_release, (self.delivery,))
        chunk = services.chunks.make_chunk(self)
        self.in_child = True
        if chunk:
            result = chunk.send(pool)
        else:
            result = self._apply_to_pool(pool, run_in_child, delivery_fields(self.delivery))
        services.write_at_once()
        return result

    def _apply_to_pool(self, pool: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call `function` in the pool with the task's time limits, and settle by its result: `on_success`."""
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
        """True if the handler has started, or the task was sent to a child."""
        return self.in_child or self.time_start is not None

    def may_start(self) -> bool:
        """True unless it was settled, has expired or was cancelled, its lease is lost, or its pool drains."""
        if self.acknowledged or (self.can_expire and self.delivery.has_expired):
            return False
        return self.services.in_flight.may_start(self.delivery)

    def run_in_thread(self) -> None:
        """Run the task in the calling thread and settle it. Release it if it may not start any more."""
        if not self.may_start():  # this may have changed while the task waited for its slot
            self.release()
            return
        self.on_accepted(getpid(), time.monotonic())
        self.on_success(run_delivery(self.delivery))

    def _run_or_release(self, delivery: Delivery) -> SlotResult:
        """Run the task in a slot of a pool without children, or return `RELEASE` if it may not start."""
        return run_delivery(delivery) if self.may_start() else (RELEASE, 0.0, 0.0)

    def release(self) -> None:
        """Release the message, or settle it as cancelled or expired. Does nothing once it is settled."""
        if self.acknowledged:
            return
        if self.services.in_flight.is_cancelled(self.delivery):
            self.mark_revoked("revoked")
            self._settle_once(NOT_RUN)
        elif self.delivery.has_expired:
            self.mark_revoked("expired")
            self._settle_once(Expired())
        else:
            self._settle_once(RELEASE)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the handler by a signal to its child, SIGKILL by default.

        The task counts as cancelled once the child has ended. Celery would count it at once, even if the
        signal does not end it. If the child runs another task of its chunk now, nothing is killed: this task
        has ended, or it was reclaimed and does not start any more.
        """
        number = signals.signum(signal or "KILL")
        if not self.services.chunks.prepare_to_kill(self):
            return
        if self.time_start:
            pool.terminate_job(self.worker_pid, number)
            self.kill_signal = number
        else:
            self.terminate_when_accepted(pool, number)

    # Ending

    def on_success(self, result: Any, **_: Any) -> None:
        """Settle the delivery by the result of its slot, a `SlotResult`.

        If billiard passes an `ExceptionInfo` instead, the slot was lost: see `on_failure`.
        """
        if not isinstance(result, tuple):
            self.on_failure(result)
            return
        outcome, seconds, cpu_seconds = result
        if type(outcome) is Release:  # it was cancelled, expired or drained before its slot was free
            self.forget_start()
            self.release()
            return
        if type(outcome) in (Redeliver, DeadLetter) and self._end_as_terminated():
            return
        if type(outcome) is DeadLetter and outcome == REJECTED:  # Celery's tracer leaves it to its request
            self.mark_failed(Reject(outcome.error))
        services = self.services
        if services.threads is None:
            mean = services.chunks.mean_seconds
            mean[self.kind] += WEIGHT * (seconds - mean[self.kind])
        self.delivery.cpu_seconds = cpu_seconds
        self._settle_once(outcome, seconds)
        if services.sends_events and (self.unsampled_since is None or type(outcome) is not Succeeded):
            self._send_end_event(outcome, seconds)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Settle a task whose slot was lost before it returned a result, by the error of the pool.

        It is redelivered or cancelled if the child died, and dead-lettered for any other error.
        """
        del send_failed_event, return_ok  # Celery's arguments
        error = unwrap_error(exc_info)
        if isinstance(error, Terminated | WorkerLostError | SystemExit | KeyboardInterrupt):
            self.redeliver(exc_info)
        elif not self.acknowledged:  # `on_timeout` has settled a task that ran into its hard limit
            line = error_line(error, self._scrub_secrets)
            trace = self._scrub_secrets(str(exc_info.traceback or ""))
            self.mark_failed(error if self.contract_with_secrets is None else DeadLettered(line), trace)
            # Others announce these: `on_timeout`, and a worker that reads the notice.
            if not (isinstance(error, TimeLimitExceeded) or self.delivery.needs_notice):
                self.announce_failed(error, exc_info)
            details = {"traceback": trace, "worker": self.hostname}
            self._settle_once(DeadLetter(type(error).__name__, line, details))
            self.send_event("task-failed", exception=line, traceback=trace)
            logger.error("Task %s[%s] failed in its slot: %s\n%s", self.name, self.id, line, trace)

    def redeliver(self, exc_info: Any) -> None:
        """Redeliver the message: its slot was lost before it returned a result.

        The task counts as cancelled if its child was terminated on request.
        """
        if not self._end_as_terminated() and not self.acknowledged:
            why = error_line(unwrap_error(exc_info), self._scrub_secrets)
            self._settle_once(REDELIVER)
            logger.warning("Task %s[%s] goes back to its queue: %s", self.name, self.id, why)

    def _end_as_terminated(self) -> bool:
        """Settle the task as cancelled if a signal told its child to end. Return True if it is that.

        SIGKILL ends the child. SIGTERM, Celery's default, raises `SystemExit` in the handler.
        """
        if self.kill_signal is None:
            return False
        self.ending = TERMINATED
        self.announce_terminated(self.kill_signal)
        return True

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Dead-letter a task whose hard time limit ran out. A `soft` limit is only logged.

        `timeout` is the limit in seconds. The pool kills the child afterwards.
        """
        if not soft:
            self.ending = DeadLetter("time limit", f"ran for more than {timeout} s, its hard time limit")
        super().on_timeout(soft, timeout)

    def set_revoked_outcome(self, *, expired: bool) -> None:
        """Set the outcome by which `acknowledge` settles a task that Celery revokes: expired or cancelled."""
        self.ending = Expired() if expired else NOT_RUN

    def acknowledge(self) -> None:
        """Settle the delivery by its `ending`. Celery calls this to acknowledge the message."""
        self._settle_once(self.ending)

    def reject(self, requeue: bool = False) -> None:
        """Dead-letter the message, or put it at the back of its queue. Celery calls this."""
        if not self.acknowledged:
            self._settle_once(REQUEUE if requeue else REJECTED)
            self.send_event("task-rejected", requeue=requeue)

    def _settle_once(self, outcome: Outcome, seconds: float | None = None) -> None:
        """Settle the delivery by an outcome, call the hooks of middleware, and mark the request as ended.

        `seconds` is the run time; None: since the handler started, if it has. Does nothing a second time.
        """
        if self.acknowledged:
            return
        services, delivery, started_at = self.services, self.delivery, self.time_start
        delivery.started_at = started_at
        if seconds is None and started_at is not None:
            seconds = time.time() - started_at
        self.acknowledged = True
        task_ready(self, successful=services.remembers_successes and type(outcome) is Succeeded)
        for hook in services.outcome_hooks[SDK in modules]:
            try:
                hook(delivery, outcome, seconds)
            except Exception:  # an error of a middleware does not change the outcome
                logger.exception("middleware %s failed on an outcome", hook_name(hook))
        services.in_flight.finish(delivery, outcome)

    # Events

    def _send_end_event(self, outcome: Outcome, seconds: float) -> None:
        """Send the event of Celery that corresponds to the outcome."""
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
        """Send the event that the task was received, unless a middleware leaves it out of the sample."""
        for shows_events in self.services.event_hooks:
            try:
                if shows_events(self.delivery):
                    continue
            except Exception:
                logger.exception("middleware %s failed as a task arrived", hook_name(shows_events))
                continue
            self.unsampled_since, self.is_quiet = time.time(), True
            self.delivery.events_shown = False
            return
        self._send_received_event()

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event of the task. `fields` are free of secrets.

        The `QUIET_EVENTS` of a task outside the sample are not sent. Its first other event puts it into the
        sample: the events of its receipt and its start are sent before, with their own times.
        """
        if self.unsampled_since is not None:
            if type in QUIET_EVENTS:
                return
            received_at, self.unsampled_since = self.unsampled_since, None
            self._send_received_event(timestamp=received_at)
            if self.time_start is not None:
                self.eventer.send("task-started", uuid=self.id, timestamp=self.time_start)
        if type == "task-started":
            self.is_quiet = True  # a reclaimed task starts again, and has this event once
        super().send_event(type, **fields)

    def _send_received_event(self, **fields: Any) -> None:
        """Send Celery's event that the task was received, with these further fields."""
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
            **fields,
        )
        self.delivery.events_shown = True

    def _scrub_secrets(self, text: str) -> str:
        """Return a text with the secret values of this task's arguments replaced."""
        return scrub_secrets(text, self.contract_with_secrets, self.delivery.message)
