"""Built-in middleware that names the running task in JSON log lines: its id, kind, batch and trace."""

from collections.abc import Mapping
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.middleware import Middleware


class LogContext(Middleware):
    """Names the task; one that was called by hand has no message, and no name."""

    def log_fields(self, context: Context) -> Mapping[str, Any]:
        """Return the facts of the task that its message has."""
        message = context.message
        if message is None:
            return {}
        trace = _trace_id(message.traceparent)
        return {"task": message.id, "kind": message.kind, "batch": message.batch, "trace": trace}


def _trace_id(parent: Any) -> str | None:
    """Return the trace id of a traceparent."""
    return parent.split("-")[1] if isinstance(parent, str) and parent.count("-") == 3 else None
