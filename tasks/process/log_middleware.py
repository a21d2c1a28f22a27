"""Built-in middleware of log lines: it adds the running task to JSON lines, and cuts its secrets out."""

from collections.abc import Mapping
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.middleware import Middleware
from millpond.tasks.redaction import scrub_secrets


class LogContext(Middleware):
    """Adds the id, kind, batch and trace of the running task to JSON log lines."""

    def log_fields(self, context: Context) -> Mapping[str, Any]:
        """Return the fields `task`, `kind`, `batch` and `trace`; no fields if there is no message."""
        message = context.message
        if message is None:
            return {}
        trace = _trace_id(message.traceparent)
        return {"task": message.id, "kind": message.kind, "batch": message.batch, "trace": trace}


class LogRedaction(Middleware):
    """Cuts the values of hidden fields out of the log lines of all loggers."""

    def redact(self, line: str, context: Context) -> str:
        """Return the line without the secrets in the arguments of the task."""
        if context.message is None:
            return line
        return scrub_secrets(line, contracts_by_kind().get(context.kind), context.message)


#: Outside of all other middleware, in every process of Millpond.
LOG_MIDDLEWARE: tuple[Middleware, ...] = LogContext(), LogRedaction()


def _trace_id(traceparent: Any) -> str | None:
    """Return the trace id in a traceparent. Return None for anything else."""
    is_valid = isinstance(traceparent, str) and traceparent.count("-") == 3
    return traceparent.split("-")[1] if is_valid else None
