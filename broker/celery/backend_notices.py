"""Notices to an application's result backend of tasks that ended without a run.

A script of the broker buries a message that was delivered too often, sheds one, or cancels one that waits. It
leaves the message in a list (`leave_untold`, scripts/_queue.lua). A worker that has the task marks it failed
or revoked, with its chord and its errbacks, as a stock worker does. So a `.get()` on its result ends.
"""

import logging
import random
from time import monotonic
from typing import Any

from celery import Celery
from celery._state import _tls
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.exceptions import WorkerLostError
from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.errors import DeadLettered
from millpond.broker.keys import QueueKeys
from millpond.broker.message import Message
from millpond.broker.message_body import BadMessage

logger = logging.getLogger(__name__)

#: How often a worker process looks, seconds.
POLL_SECONDS = 5.0
#: The maximum of messages of a look, and how long one process alone notifies of them, ms.
MOST = 100
ALONE_MS = 30_000


class BackendNotifier:
    """Tells the result backend of one worker process's application about tasks that ended without a run."""

    def __init__(self) -> None:
        self.due_at = monotonic() + random.uniform(0, POLL_SECONDS)

    def tick(self, channel: Any) -> None:
        """Notify for each queue that a channel consumes. Called from `due_at` on."""
        self.due_at = monotonic() + POLL_SECONDS
        app = _tls.current_app
        if app is None:  # a program that consumes, and no worker
            return
        for lease in tuple(channel.in_flight.leases.values()):
            try:
                notify_waiting(app, channel.store, lease.keys)
            except RedisError as error:  # the next look finds them; an error of a backend is logged
                logger.warning("results of %s are not told yet: %s", lease.keys.queue, error)


def notify_waiting(app: Celery, store: Store, keys: QueueKeys) -> None:
    """Notify the backend of each ended task that the application has and that waits for this.

    A process that is killed meanwhile leaves it to the next: a backend may hear of a task twice, never not at
    all.
    """
    client = store.client
    entries = client.lrange(keys.backend_notices, -MOST, -1)
    if not entries or not client.set(f"{keys.backend_notices}:by", 1, nx=True, px=ALONE_MS):
        return
    try:
        for entry in reversed(entries):
            if _notify_entry(app, entry):
                client.lrem(keys.backend_notices, -1, entry)
    finally:
        client.delete(f"{keys.backend_notices}:by")


def _notify_entry(app: Celery, entry: bytes) -> bool:
    """Notify the backend of the task of one entry.

    True if the task is this application's and this was done.
    """
    words, _, text = entry.partition(b"\n")
    state, _, reason = words.decode().partition(" ")
    try:
        message = Message.decode(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return True
    if message.kind not in app.tasks and (
        reason != "unknown kind" or isinstance(app.backend, DisabledBackend)
    ):
        return False  # another application's, which shares the queue
    return notify_end(app, message, state, dead_letter_error(reason) if state == "failed" else None)


def notify_end(app: Celery, message: Message, state: str, error: BaseException | None = None) -> bool:
    """Mark a task in its backend as `failed` by an error, `cancelled` or `expired`.

    Return whether that was done.
    """
    task = app.tasks.get(message.kind)
    backend = app.backend if task is None else task.backend
    request = _request_fields(message)
    ignored = request.ignore_result or (task is not None and task.ignore_result)
    stored = not ignored or (task is not None and task.store_errors_even_if_ignored)
    try:
        if error is not None:
            backend.mark_as_failure(message.id, error, request=request, store_result=stored)
        else:
            why = "expired" if state == "expired" else "revoked"
            backend.mark_as_revoked(message.id, why, request=request, store_result=stored)
    except Exception:  # a backend may raise any error; the messages in the list are tried once more
        logger.exception("the result backend did not take how task %s[%s] ended", message.kind, message.id)
        return False
    if not isinstance(backend, DisabledBackend):
        details = (message.kind, message.id, state, error or "-")
        logger.info("Task %s[%s] is %s in the result backend: %s", *details)
    return True


def dead_letter_error(reason: str, line: str = "") -> Exception:
    """Return the error by which a backend shows a task that became a dead letter."""
    text = f"{reason}: {line}" if line else reason
    return WorkerLostError(text) if reason == "too many deliveries" else DeadLettered(text)


def _request_fields(message: Message) -> Context:
    """Return the fields of a task's request that backends need: its chord, its group, its errbacks."""
    try:
        args, kwargs, embed = message.arguments
    except BadMessage:
        args, kwargs, embed = [], {}, {}
    return Context({**message.headers, "args": args, "kwargs": kwargs, **embed})
