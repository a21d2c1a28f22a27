"""Carry one delivery through the pool: start it, and say how it ended in the settlement that acknowledges it.

Celery's own request acknowledges and forgets; here the outcome travels with the acknowledgement, so that
the broker counts a batch, keeps a dead letter or replaces a message by its retry in the same step that
lets the message go.
"""

import json
import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated
from celery.concurrency.base import apply_target
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.platforms import signals
from celery.worker.state import task_ready

from millpond.broker.consume.fetch_call import buried
from millpond.broker.consume.in_flight import Holder
from millpond.broker.outcomes import HANDED_AGAIN, REJECTED, Settlement
from millpond.tasks.contract import Contract
from millpond.tasks.errors import BadContract, Cancelled
from millpond.tasks.redaction import scrubbed, secrets_in
from millpond.worker.celery.handover import write_at_once
from millpond.worker.celery.retry import RetryAsSettlement
from millpond.worker.celery.slot import NOT_STARTED, Answer, run
from millpond.worker.completer import Settler
from millpond.worker.dispatch.chunk_job import Piece, Words
from millpond.worker.dispatch.chunks import Grouper
from millpond.worker.dispatch.thread_pool import Pull
from millpond.worker.report.event_sampling import SampledRequest
from millpond.worker.report.task_metrics import Meter, State
from millpond.worker.report.tracing import settling

logger = logging.getLogger(__name__)

#: A traceback in a dead letter is cut to its last this many characters.
TRACEBACK_LENGTH = 8_192

#: How a task counts whose child was killed because somebody asked for it.
ENDED = Settlement(state="cancelled", detail=json.dumps({"error": "ended while it ran"}))

_SUCCEEDED = Settlement()
_GOES_ON = Settlement("settle", state="")


class PondRequest(SampledRequest):
    """Celery's request, which tells the holder how its delivery ended."""

    #: A prefork child has it: what is handed to a child is as good as started.
    in_child = False
    #: What it shares its child with, if with anything.
    piece: "Piece | None" = None
    #: Shared by the requests of this process; set by the strategy.
    grouper: Grouper
    meter: Meter
    settler: Settler
    pull: Pull | None
    #: Whether `worker_deduplicate_successful_tasks` is set, for which Celery keeps the ids of what succeeded.
    remembers_successes = False
    measured = False
    #: The contract, where it hides fields.
    secretive: type[Contract] | None = None
    #: It was given back or dropped: the holder knows it no more, and its body must not start.
    let_go = False
    acknowledged: bool
    #: The delivery tag under which the message is held, and the holder of this process.
    tag: str
    holder: Holder

    # Starting

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the task to the pool. Raises Celery's `TaskRevokedError` when it must not start any more."""
        if self.revoked():
            raise TaskRevokedError(self.id)
        if self.pull is not None:
            self.pull.put(self)
            return None
        if not self.may_start():
            self.give_back()
            raise TaskRevokedError(self.id)
        if not pool.uses_semaphore:
            return self._apply(pool, self._run_if_still_wanted)
        piece = self.grouper.piece_for(self, pool._pool._putlock)
        self.in_child = True
        result = self._apply(pool, run) if piece is None else piece.send(pool)
        write_at_once(pool, self.settler.hub)
        return result

    def _apply(self, pool: Any, function: Callable[..., Any]) -> Any:
        hard, soft = self.limits
        return pool.apply_async(
            function,
            args=self.words,
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
        )

    @property
    def words(self) -> Words:
        """Return what `run` is called with."""
        return self._type, self.id, self._request_dict, self._body

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Return the hard and the soft time limit, in seconds: the message's own, or else its kind's."""
        hard, soft = self.time_limits
        return hard or self._task.time_limit, soft or self._task.soft_time_limit

    @property
    def deliveries(self) -> int:
        """Count the deliveries before this one."""
        own = self._request_dict.get("millpond")
        return int(own["deliveries"]) if own else 0

    @property
    def started(self) -> bool:
        """Say whether the body runs, or is about to."""
        return self.in_child or self.time_start is not None

    def may_start(self) -> bool:
        """Say whether the pool still takes work and the message is still this process's."""
        holder, tag = self.holder, self.tag
        given_up = self.let_go or holder.starts_nothing or self.has_expired
        return not (given_up or holder.is_lost(tag) or holder.is_cancelled(tag))

    def run_in_thread(self) -> None:
        """Run in the calling thread, from its start to its settlement."""
        apply_target(self._run_if_still_wanted, self.words, None, self.on_success, self.on_accepted)
        self.settler.let_catch_up()

    def _run_if_still_wanted(self, *args: Any) -> Answer:
        """Run in a thread, which may have had to wait for its slot."""
        if not self.may_start():
            return 0, NOT_STARTED, 0.0, 0.0
        return run(*args)

    def give_back(self) -> None:
        """Return the message to the head of its queue, no delivery counted; drop it if it is of no use."""
        self.let_go = True
        task_ready(self)
        self._settle(self.not_started(cancelled=self.holder.is_cancelled(self.tag)))

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the body, by killing its child; it counts as cancelled once the child is gone.

        Celery would count it while it may still run, and whether or not the signal ends it. Where the child
        is with another task, this one has ended, or is taken back and does not start any more.
        """
        number = signals.signum(signal or "KILL")
        if not self.grouper.has_its_child(self):
            return
        if self.time_start:
            pool.terminate_job(self.worker_pid, number)
        else:
            self._terminate_on_ack = pool, number

    def hand_out_again(self, exc_info: Any) -> None:
        """Let the message be delivered again, the delivery counted: its child was lost before it answered."""
        if self.acknowledged:
            return
        task_ready(self)
        self._measure("lost")
        self._settle(HANDED_AGAIN)
        why = self._scrubbed(str(_unwrapped(exc_info.exception)))
        logger.warning("Task %s[%s] goes back to its queue: %s", self.name, self.id, why)

    # Ending

    def on_success(self, answer: Any, **_: Any) -> None:
        """Settle a task that ended by itself, well or not."""
        if not isinstance(answer, tuple):
            self.on_failure(answer)
            return
        failed, returned, seconds, used = answer
        self.meter.used.append(used)
        if returned == NOT_STARTED:
            self.give_back()
        elif failed:
            self.on_failure(returned, return_ok=True)
        else:
            kept, shown = returned
            self.grouper.learn(self.type, seconds)
            self._measure("succeeded", seconds)
            task_ready(self, successful=self.remembers_successes)
            self._settle(_SUCCEEDED if kept is None else Settlement(detail=kept))
            self.send_event("task-succeeded", result=shown, runtime=seconds)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Settle a task that failed, is to be retried, or whose process was lost."""
        error = _unwrapped(exc_info.exception)
        self._note(error, exc_info)
        self._measure(_state_of(error))
        if isinstance(error, MemoryError):
            # Celery raises it again, in the main process, and with it ends a worker that is in good health.
            self._fail_of_memory(exc_info)
            return
        super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Settle a task whose time limit ran out; its process is killed after this."""
        if not soft:
            self._measure("failed")
            self.holder.note(
                self.tag, buried("time limit", f"ran for more than {timeout} s, its hard time limit")
            )
        super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not terminated:
            self.holder.note(self.tag, Settlement(state="expired" if expired else "cancelled"))
        super()._announce_revoked(reason, terminated, signum, expired)

    def _note(self, error: BaseException, exc_info: Any) -> None:
        match error:
            case RetryAsSettlement():
                replacement = Settlement("replace", due_ms=error.due_ms, text=error.payload)
                self.holder.note(self.tag, replacement)
            case Retry():
                self.holder.note(self.tag, _GOES_ON)
            case Ignore():
                self.holder.note(self.tag, _SUCCEEDED)
            case WorkerLostError() | Reject() | SystemExit() | KeyboardInterrupt():
                pass  # handed out again, or rejected: the broker counts
            case Terminated():
                self.holder.note(self.tag, ENDED)
            case Cancelled():
                self.holder.note(self.tag, Settlement(state="cancelled"))
            case BadContract():
                self.holder.note(self.tag, buried("bad contract", self._scrubbed(str(error))))
            case TimeLimitExceeded():
                self.holder.note(self.tag, buried("time limit", str(error)))
            case _:
                self.holder.note(self.tag, self._failure(error, exc_info))

    def _failure(self, error: BaseException, exc_info: Any) -> Settlement:
        line = self._scrubbed(f"{type(error).__name__}: {error}").splitlines()[0][:1024]
        return buried(
            type(error).__name__,
            line,
            traceback=self._scrubbed(str(exc_info.traceback or ""))[-TRACEBACK_LENGTH:],
            retries=self._request_dict.get("retries", 0),
            worker=self._hostname,
            started_at=self.time_start,
        )

    def _fail_of_memory(self, exc_info: Any) -> None:
        task_ready(self)
        self.acknowledge()
        self.send_event("task-failed", exception="MemoryError()", traceback=str(exc_info.traceback))
        logger.error("Task %s[%s] ran out of memory", self.name, self.id)

    def _measure(self, state: State, seconds: float | None = None) -> None:
        """Note how the run ended, how long the message had waited, and how long the body took."""
        start = self.time_start
        if start is None or self.measured:
            return
        self.measured = True
        own = self._request_dict.get("millpond") or {}
        since = max((at for at in (own.get("at"), own.get("due")) if isinstance(at, int)), default=None)
        wait = None if since is None else start + (own["clock_ms"] - since) / 1000
        # By its type: a sender may give every task a name of its own (Celery's `shadow`).
        self.meter.ended.append((self.type, state, wait, time.time() - start if seconds is None else seconds))

    def _settle(self, settlement: Settlement) -> None:
        self.holder.note(self.tag, settlement)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Let the event loop settle the delivery as noted.

        Without a loop, while the pool drains, do it here.
        """
        if self.acknowledged:
            return
        span = settling(self.name, self.id, self.tag.partition(" ")[2], self._request_dict.get("traceparent"))
        if span is not None:
            self.holder.when_settled(self.tag, span.end)
        self.acknowledged = True
        if self.holder.draining:
            self._message.channel.settle_now(self.tag)
        else:
            self.settler.finish(self.tag)

    def reject(self, requeue: bool = False) -> None:
        """Bury the message, or let it be delivered again, on the way of every other settlement.

        Celery asks the event loop alone, which has ended while the pool drains.
        """
        if not self.acknowledged:
            self._settle(HANDED_AGAIN if requeue else REJECTED)
            self.send_event("task-rejected", requeue=requeue)

    # Showing

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell whoever listens, without the task's secrets."""
        if self.secretive is not None:
            fields = {
                name: self._scrubbed(value) if isinstance(value, str) else value
                for name, value in fields.items()
            }
        super().send_event(type, **fields)

    def _scrubbed(self, text: str) -> str:
        return text if self.secretive is None else scrubbed(text, self._secrets)

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        return () if self.secretive is None else secrets_in(self.secretive, self._args, self._kwargs)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe the request for remote control, arguments always as they may be shown."""
        del safe
        return dict(super().info(safe=True))


def _unwrapped(error: BaseException) -> BaseException:
    """Return what was raised, without the text of its traceback that a child sends along."""
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def _state_of(error: BaseException) -> State:
    """Name how a run ended that raised this."""
    match error:
        case Retry():
            return "retried"
        case Ignore():
            return "succeeded"
        case WorkerLostError() | Reject() | SystemExit() | KeyboardInterrupt():
            return "lost"
        case Cancelled() | Terminated():
            return "cancelled"
        case _:
            return "failed"
