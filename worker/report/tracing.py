"""Trace a task in its slot: how long it waited, and the run itself, under the span of whoever sent it."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from celery import Celery, signals

from millpond.tasks.contract import kinds
from millpond.tasks.process import tracing
from millpond.tasks.redaction import hides, scrubbed, secrets_in
from millpond.tasks.settings import Settings

_NS = 1_000_000


class Run:
    """Be the run of one task, as far as its trace goes; the body's outcome is told to `fail`."""

    def __init__(self, span: Any, name: str, body: Any) -> None:
        self._span = span
        self._name = name
        self._body = body

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed, with the error in one line and without the task's secrets."""
        if self._span is not None:
            text, contract = f"{type(error).__name__}: {error}", kinds().get(self._name)
            if contract is not None and hides(contract):
                text = scrubbed(text, secrets_in(contract, self._body[0], self._body[1]))
            tracing.failed(self._span, text[:1024])


#: A run that is not traced.
_UNTRACED = nullcontext(Run(None, "", None))


def running(name: str, id: str, request: dict[str, Any], body: Any) -> AbstractContextManager[Run]:
    """Trace the run of a task for the length of a block."""
    return _UNTRACED if tracing.tracer() is None else _traced(name, id, request, body)


@contextmanager
def _traced(name: str, id: str, request: dict[str, Any], body: Any) -> Iterator[Run]:
    parent, own = _header(request.get("traceparent")), request.get("millpond") or {}
    queue = str((request.get("delivery_info") or {}).get("routing_key") or "")
    told = tracing.attributes(name, id=id, queue=queue, own=own)
    now_ns = time.time_ns()
    since = max((at for at in (own.get("at"), own.get("due")) if isinstance(at, int)), default=None)
    if since is not None:
        began = min(now_ns, (since - int(own.get("clock_ms", 0))) * _NS)
        waited = tracing.begin(f"wait {queue}", "INTERNAL", parent, attributes=told, start_time=began)
        waited.end(now_ns)
    told |= {
        "millpond.retries": int(request.get("retries") or 0),
        "millpond.deliveries": 1 + int(own.get("deliveries", 0)),
    }
    span = tracing.begin(
        f"run {name}", "CONSUMER", parent, attributes=told, links=tracing.link(own.get("link"))
    )
    with tracing.current(span):
        yield Run(span, name, body)


def settling(name: str, id: str, queue: str, parent: Any) -> Any:
    """Begin the span of a settlement, which ends when the broker has confirmed it; None: not traced."""
    if tracing.tracer() is None:
        return None
    told = tracing.attributes(name, id=id, queue=queue)
    return tracing.begin(f"settle {queue}", "INTERNAL", _header(parent), attributes=told)


def _header(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def install(app: Celery, settings: Settings) -> None:
    """Trace the tasks of this application's workers, if the settings say where to."""
    tracing.configure(settings.traces_endpoint, service="millpond-worker")
    if settings.traces_endpoint:

        def flush(**_: Any) -> None:
            tracing.flush()

        app.flush_spans = flush  # signals keep weak references
        signals.worker_process_shutdown.connect(flush)
        signals.worker_shutdown.connect(flush)
