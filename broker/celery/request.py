"""Celery's request, made from a delivery. A field that only Celery reads is computed when it is read.

Celery's own request reads every header and keeps copies, of which a worker uses only a few. A request that is
handed to a prefork child is written to its pipe at once (`make_immediate_writer`).
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic, time
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.app.task import Context
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request, send_revoked
from celery.worker.state import (
    active_requests,
    all_total_count,
    revoked,
    revoked_stamps,
    task_accepted,
    task_ready,
    total_count,
)

from millpond.broker.celery.backend_notices import send_failure_signal
from millpond.broker.celery.prefork_pool import children_of
from millpond.broker.delivery import Delivery
from millpond.broker.message import OWN, BadMessage

logger = logging.getLogger(__name__)

#: Headers of a message that Celery defines. All others are the task's own.
_CELERYS_HEADERS = frozenset((*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"))


class DeliveryRequest(Request):
    """Celery's request to execute one delivery by a task.

    `services` has `app`, `hostname`, `eventer`, and `on_limits_of_call` for a message with time limits.

    Subclasses implement `acknowledge`, `reject` and `set_revoked_outcome`.
    """

    acknowledged: bool
    #: The hard and the soft time limit, seconds: the message's own, or else its kind's.
    limits: tuple[float | None, float | None]
    #: True if the message has a time by which the task must have started.
    can_expire = False
    #: True if no event is sent when the task starts.
    is_quiet = False
    #: The contract if it has secret fields, else None.
    contract_with_secrets: Any = None

    def __init__(self, delivery: Delivery, task: Any, services: Any) -> None:
        message = delivery.message
        headers = message.headers
        if not isinstance(headers.get("id"), str):
            raise InvalidTaskError("its id must be a text")
        self.delivery, self.services = delivery, services
        self.id, self.name, self.kind = message.id, message.name, message.kind
        self._task, self._app, self._eventer = task, services.app, services.eventer
        self._hostname = services.hostname
        self._eta = self._expires = self._message = None
        limits = headers.get("timelimit")
        if limits and limits != [None, None]:
            self.time_limits = message.time_limits
            services.on_limits_of_call(self.name, self.id)
        hard, soft = self.time_limits
        self.limits = hard or task.time_limit, soft or task.soft_time_limit
        if headers.get("expires") is not None:
            self.can_expire = True
            self._expires = datetime.fromtimestamp((message.expires_ms or 0) / 1000, UTC)
        self._argsrepr, self._kwargsrepr = headers.get("argsrepr", ""), headers.get("kwargsrepr", "")

    def show_arguments(self, args: str, kwargs: str) -> None:
        """Set the texts by which logs, events and remote control show the arguments."""
        self._argsrepr, self._kwargsrepr = args, kwargs

    # Attributes that Celery's methods read

    @cached_property
    def _request_dict(self) -> dict[str, Any]:
        args, kwargs, _embed = self._payload
        shown = {"argsrepr": self._argsrepr, "kwargsrepr": self._kwargsrepr}
        return {**make_request_dict(self.delivery, self._hostname), **shown, "args": args, "kwargs": kwargs}

    _payload = property(lambda self: self.delivery.message.arguments)
    _args = property(lambda self: self._payload[0])
    _kwargs = property(lambda self: self._payload[1])
    _type = property(lambda self: self.kind)
    _delivery_info = property(lambda self: self._request_dict["delivery_info"])
    _root_id = property(lambda self: self.delivery.message.headers.get("root_id"))
    _parent_id = property(lambda self: self.delivery.message.headers.get("parent_id"))

    @property
    def _ignore_result(self) -> Any:
        return self.delivery.message.headers.get("ignore_result", self._task.ignore_result)

    def maybe_expire(self) -> bool:
        """Return True if the task has expired by the server's clock, and mark it as revoked then."""
        if self.delivery.has_expired:
            revoked.add(self.id)
            return True
        return False

    def revoked(self) -> bool:
        """True if the task must not start, because it has expired or was revoked by remote control."""
        if not self.can_expire and not revoked_stamps and self.id not in revoked:
            return bool(self._already_revoked)
        return bool(super().revoked())

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return a description of the request for remote control.

        Its arguments are values, or texts if some are secret or the message cannot be decoded.
        """
        try:
            return dict(super().info(safe=safe or self.contract_with_secrets is not None))
        except BadMessage:
            return dict(super().info(safe=True))

    def record_start(self, pid: int | None, time_accepted: float) -> None:
        """Record that a slot has the task: its process, and since when (monotonic seconds)."""
        self.worker_pid, self.time_start = pid, time() - (monotonic() - time_accepted)
        task_accepted(self)
        if not self.is_quiet:
            self.send_event("task-started")

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Record the start of a task, and terminate it if that was requested before.

        A task that has ended already would count as running for ever, so nothing is done for it.
        """
        if self.acknowledged:
            return
        self.record_start(pid, time_accepted)
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def forget_start(self) -> None:
        """Forget the recorded start of a task that was reclaimed from the children."""
        if self.time_start is not None:
            active_requests.discard(self)
            total_count[self.name] -= 1
            all_total_count[0] -= 1
        self.time_start = self.worker_pid = None  # type: ignore[assignment]

    def terminate_when_accepted(self, pool: Any, signal_number: int) -> None:
        """Terminate the task, by a signal number, as soon as a child of the pool has accepted it."""
        self._terminate_on_ack = pool, signal_number

    def set_revoked_outcome(self, *, expired: bool) -> None:
        """Set the outcome by which `acknowledge` settles a task that expired or was revoked. Abstract."""
        raise NotImplementedError

    def mark_revoked(self, reason: str) -> None:
        """Mark the task in its result backend as revoked, and its part of a chord as failed."""
        self._mark_in_backend(self.task.backend.mark_as_revoked, reason)

    def mark_failed(self, error: BaseException, traceback: str = "") -> None:
        """Mark the task in its result backend as failed, with its chord and its errbacks."""
        self._mark_in_backend(self.task.backend.mark_as_failure, error, traceback=traceback)

    def announce_failed(self, error: BaseException, exc_info: Any) -> None:
        """Send Celery's signal for a task that failed outside of its tracer, which would have sent it."""
        send_failure_signal(self.task, self._context, error, exc_info)

    def _mark_in_backend(self, mark: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a method of the result backend for this task.

        An error of the backend is logged, and the delivery is marked, so that a worker notifies it later.
        """
        try:
            mark(self.id, *args, request=self._context, store_result=self.store_errors, **kwargs)
        except Exception:  # the delivery must be settled even if its result cannot be stored
            logger.exception("the result backend did not take how task %s[%s] ended", self.name, self.id)
            self.delivery.needs_notice = True

    def announce_terminated(self, signal_number: int) -> None:
        """Send Celery's signal and event for a task that was terminated, and acknowledge it."""
        if not self._already_cancelled and not self._already_revoked:
            self._announce_revoked("terminated", True, signal_number, False)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Send the event and the signal of a revocation, mark it in the result backend, and acknowledge it.

        Celery's own method raises the errors of the backend, and then the delivery would not be settled.
        Raises `BadMessage` for a body that cannot be decoded, before anything is settled.
        """
        context = self._context
        if not terminated:
            self.set_revoked_outcome(expired=expired)
        details = {"terminated": terminated, "signum": signum, "expired": expired}
        task_ready(self)
        self.send_event("task-revoked", **details)
        self.mark_revoked(reason)
        self.acknowledge()
        self._already_revoked = True
        send_revoked(self.task, request=context, **details)


def make_request_dict(delivery: Delivery, hostname: str) -> dict[str, Any]:
    """Return the request of a delivery as the dictionary that Celery's tracer expects."""
    message = delivery.message
    clock = {"deliveries": delivery.deliveries, "clock_ms": delivery.clock_ms}
    headers = {**message.headers, OWN: {**message.own, **clock, "of": message.id}}
    properties = message.properties
    info = properties.get("delivery_info")
    return {
        **headers,
        "retries": message.retries,
        "hostname": hostname,
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "delivery_info": {
            **(info if isinstance(info, dict) else {"exchange": "", "routing_key": delivery.queue}),
            "priority": properties.get("priority"),
            "redelivered": delivery.deliveries > 0,
        },
        "headers": {name: headers[name] for name in headers.keys() - _CELERYS_HEADERS} or None,
    }


def make_immediate_writer(pool: Any, hub: Any) -> Callable[[], None]:
    """Return a function that writes the next task of the pool to a free child, if there is one.

    The pool itself would write it two iterations of the event loop later. If `pool`, which is Celery's, has
    no children, the function does nothing.
    """
    children = children_of(pool)
    if children is None or hub is None:
        return lambda: None

    def write() -> None:
        free = children._all_inqueues - children._active_writes - children._busy_workers
        if free:
            hub.consolidate_callback([free.pop()])

    return write


def unwrap_error(exc_info: Any) -> BaseException:
    """Return the error of an `ExceptionInfo`. A child wraps it with the text of its traceback."""
    error = exc_info.exception
    unwrapped: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return unwrapped
