"""Built-in middleware that adds the running task to JSON log lines: its id, kind, batch and trace."""

from collections.abc import Mapping
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.middleware import Middleware


class LogContext(Middleware):
    """Adds the id, kind, batch and trace of the running task to JSON log lines."""

    def log_fields(self, context: Context) -> Mapping[str, Any]:
        """Return the fields `task`, `kind`, `batch` and `trace`; no fields if there is no message."""
        message = context.message
        if message is None:
            return {}
        trace = _trace_id(message.traceparent)
        return {"task": message.id, "kind": message.kind, "batch": message.batch, "trace": trace}


def _trace_id(traceparent: Any) -> str | None:
    """Return the trace id in a traceparent. Return None for anything else."""
    is_valid = isinstance(traceparent, str) and traceparent.count("-") == 3
    return traceparent.split("-")[1] if is_valid else None
