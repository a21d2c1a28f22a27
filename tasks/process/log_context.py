"""Built-in middleware that names the running task in JSON log lines: its id, kind, batch and trace."""

from collections.abc import Mapping
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.middleware import Middleware


class LogContext(Middleware):
    """Adds the id, kind, batch and trace of the running task to JSON log lines."""

    def log_fields(self, context: Context) -> Mapping[str, Any]:
        """Return id, kind, batch and trace id of the running task for JSON log lines.

        Return no fields if the handler was called without a message.
        """
        message = context.message
        if message is None:
            return {}
        trace = _trace_id(message.traceparent)
        return {"task": message.id, "kind": message.kind, "batch": message.batch, "trace": trace}


def _trace_id(parent: Any) -> str | None:
    """Return the trace id of a traceparent."""
    return parent.split("-")[1] if isinstance(parent, str) and parent.count("-") == 3 else None
