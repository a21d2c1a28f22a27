"""Notices to an application's result backend of tasks that ended without its knowledge.

A script of the broker has ended such a task: it was delivered too often, shed, or cancelled while it waited.
Or the backend raised an error as the task failed, was revoked or expired, for example because its server was
away. The script leaves the message in a list (`leave_notice`, scripts/_queue.lua). A worker that has the task
marks it as failed or revoked in the result backend, with its chord and its errbacks, as a stock worker does.
So a `.get()` on its result ends. For a failed task it also sends the signal `task_failure`.
"""

import logging
import random
from time import monotonic
from typing import Any

from celery import Celery, Task
from celery._state import _tls
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.exceptions import WorkerLostError
from celery.signals import task_failure
from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.errors import DeadLettered
from millpond.broker.keys import QueueKeys
from millpond.broker.message import BadMessage, Message

logger = logging.getLogger(__name__)

#: How often a worker process reads the lists, seconds.
POLL_SECONDS = 5.0
#: The maximum of entries that are read of a list, and how long the lock of the process that handles them
#: lasts.
MAX_ENTRIES = 100
LOCK_MS = 30_000
#: How long a worker process does not read the lists after the backend raised an error, seconds. A backend
#: whose server is away may block the process for a time.
PAUSE_SECONDS = 30.0


class BackendNotifier:
    """Notifies the result backend of a worker process's application of tasks that ended without a run."""

    def __init__(self) -> None:
        self.due_at = monotonic() + random.uniform(0, POLL_SECONDS)

    def tick(self, channel: Any) -> None:
        """Notify the backend of tasks of each queue that a channel consumes. Called from `due_at` on."""
        self.due_at = monotonic() + POLL_SECONDS
        app = _tls.current_app
        if app is None:  # the program is no worker
            return
        for lease in tuple(channel.in_flight.leases.values()):
            try:
                if not notify_backend(app, channel.store, lease.keys):
                    self.due_at = monotonic() + PAUSE_SECONDS
                    return
            except RedisError as error:  # the entries stay in the list until the next tick
                logger.warning("queue %s: a result backend is not notified yet: %s", lease.keys.queue, error)


def notify_backend(app: Celery, store: Store, keys: QueueKeys) -> bool:
    """Notify the result backend of the ended tasks in a queue's list that the application has.

    An entry is removed after its notice. If this process is killed before that, another one repeats the
    notice. Return False if the backend raised an error: the entry and those after it are left for later.
    """
    client = store.client
    entries = client.lrange(keys.backend_notices, -MAX_ENTRIES, -1)
    if not entries or not client.set(f"{keys.backend_notices}:by", 1, nx=True, px=LOCK_MS):
        return True
    try:
        for entry in reversed(entries):
            is_notified = _notify_entry(app, entry)
            if is_notified is False:
                # The others come first next time, in case the backend raises an error for this one alone.
                client.lpush(keys.backend_notices, entry)
                client.lrem(keys.backend_notices, -1, entry)
                return False
            if is_notified:
                client.lrem(keys.backend_notices, -1, entry)
    finally:
        client.delete(f"{keys.backend_notices}:by")
    return True


def _notify_entry(app: Celery, entry: bytes) -> bool | None:
    """Notify the backend of the task of one entry. Return True if the entry can be removed.

    Return None if the task belongs to another application, and False if the backend raised an error.
    """
    first_line, _, text = entry.partition(b"\n")
    state, _, reason = first_line.decode().partition(" ")
    try:
        message = Message.decode(text)
    except BadMessage:
        return True  # no application can handle it
    if message.kind not in app.tasks and (
        reason != "unknown kind" or isinstance(app.backend, DisabledBackend)
    ):
        return None  # another application's, which shares the queue
    return notify_end(app, message, state, make_dead_letter_error(reason) if state == "failed" else None)


def notify_end(app: Celery, message: Message, state: str, error: BaseException | None = None) -> bool:
    """Mark a task in its result backend as failed, by an `error`, or as revoked: `cancelled` or `expired`.

    A failure of a task that `app` has is announced by the signal `task_failure`. Return False if the backend
    raised an error, which is logged: the caller may repeat the notice, so no signal is sent.
    """
    task = app.tasks.get(message.kind)
    backend = app.backend if task is None else task.backend
    request = _request_fields(message)
    is_ignored = request.ignore_result or (task is not None and task.ignore_result)
    is_stored = not is_ignored or (task is not None and task.store_errors_even_if_ignored)
    try:
        if error is not None:
            backend.mark_as_failure(message.id, error, request=request, store_result=is_stored)
        else:
            reason = "expired" if state == "expired" else "revoked"
            backend.mark_as_revoked(message.id, reason, request=request, store_result=is_stored)
    except Exception:  # a backend may raise any error
        logger.exception("the result backend did not take how task %s[%s] ended", message.kind, message.id)
        return False
    if error is not None and task is not None:
        send_failure_signal(task, request, error)
    if not isinstance(backend, DisabledBackend):
        details = (message.kind, message.id, state, error or "-")
        logger.info("Task %s[%s] is %s in the result backend: %s", *details)
    return True


def send_failure_signal(task: Task, request: Context, error: BaseException, einfo: Any = None) -> None:
    """Send Celery's `task_failure` for a task that failed outside of the tracer, which would have sent it."""
    task.request_stack.push(request)
    try:
        details = {"args": request.args, "kwargs": request.kwargs, "traceback": error.__traceback__}
        task_failure.send(sender=task, task_id=request.id, exception=error, einfo=einfo, **details)
    finally:
        task.request_stack.pop()


def make_dead_letter_error(reason: str, line: str = "") -> Exception:
    """Return the error to store for a task that became a dead letter, by its reason and a line of detail."""
    text = f"{reason}: {line}" if line else reason
    return WorkerLostError(text) if reason == "too many deliveries" else DeadLettered(text)


def _request_fields(message: Message) -> Context:
    """Return a request with the fields that result backends need: chord, group, errbacks."""
    try:
        args, kwargs, embed = message.arguments
    except BadMessage:
        args, kwargs, embed = [], {}, {}
    return Context({**message.headers, "args": args, "kwargs": kwargs, **embed})
