"""Retry by settlement: the message of the next run takes the place of this one in the step that settles it.

Celery publishes the retry first and acknowledges after; a kill in between runs the task twice and counts
it twice.
"""

import time
from datetime import UTC, datetime
from typing import Any

from celery import Task
from celery.exceptions import Retry

from millpond.broker.message import compose
from millpond.tasks.contract import redact
from millpond.tasks.handlers import Body
from millpond.tasks.process.tracing import traceparent


class RetryAsSettlement(Retry):
    """Celery's `Retry`, with the message that is to run next and when it is due (ms, the server's clock)."""

    def __init__(
        self, message: str, exc: BaseException | None, when: float, payload: str, due_ms: int
    ) -> None:
        super().__init__(message, exc, when)
        self.payload = payload
        self.due_ms = due_ms

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way from a prefork child, the cause as a line of text."""
        cause = RuntimeError(str(self.exc)) if self.exc is not None else None
        return type(self), (str(self.message), cause, self.when, self.payload, self.due_ms)


def retry_after(task: Task, body: Body, kwargs: dict[str, Any], cause: Exception, *, seconds: float) -> Retry:
    """Return what to raise so that the task runs again in so many seconds.

    Raises `cause` when the task has no retries left.
    """
    request = task.request
    if request.retries >= body.retries:
        raise cause
    own = request.get("millpond") or {}
    now_ms = int(time.time() * 1000) + int(own.get("clock_ms", 0))
    due_ms = now_ms + int(seconds * 1000)
    outgoing = compose(
        body.kind,
        kwargs,
        queue=(request.delivery_info or {}).get("routing_key") or body.contract.queue,
        sent_at_ms=own.get("at", now_ms),
        id=request.id,
        shown=redact(body.contract, kwargs),
        priority=(request.delivery_info or {}).get("priority") or 0,
        due_ms=due_ms,
        expires_ms=_expires_ms(request.expires),
        time_limits=tuple(request.timelimit or (None, None)),
        batch=own.get("batch"),
        after=own.get("after"),
        claim=own.get("once"),
        retries=request.retries + 1,
        traceparent=request.get("traceparent"),
        link=traceparent(),
        root_id=request.root_id,
        parent_id=request.parent_id,
    )
    return RetryAsSettlement("", cause, seconds, outgoing.payload, due_ms)


def _expires_ms(expires: str | datetime | None) -> int | None:
    """Return the message's expiry, which holds for its retries too; a time without a zone is UTC."""
    if expires is None:
        return None
    at = datetime.fromisoformat(expires) if isinstance(expires, str) else expires
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
