"""Write log lines: plain ones, or a JSON object each.

Middleware adds to the lines that are written while a task runs in this thread, by any logger: who it is
(log_context.py), and the secrets that are cut out (log_redaction.py).
"""

import logging
from datetime import UTC, datetime
from json import dumps
from typing import Any

from millpond.tasks.execute import running_context
from millpond.tasks.middleware import Hooks, Middleware
from millpond.tasks.process.log_context import LogContext
from millpond.tasks.process.log_redaction import LogRedaction

PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"

#: The built-in middleware of log lines, in every process of Millpond.
LOG_MIDDLEWARE: tuple[Middleware, ...] = LogContext(), LogRedaction()

_BUILT_IN = Hooks(LOG_MIDDLEWARE)


def log_to_stderr(log_format: str, *, level: int = logging.INFO) -> None:
    """Log to stderr from now on, as the setting `log_format` says: `plain` or `json`."""
    logging.basicConfig(format=PLAIN, level=level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(make_formatter(log_format, handler.formatter))


def make_formatter(
    log_format: str, plain: logging.Formatter | None = None, hooks: Hooks = _BUILT_IN
) -> logging.Formatter:
    """Return the formatter for a format. Plain lines are written by `plain`."""
    if log_format == "json":
        return JsonFormatter(hooks)
    return (
        plain
        if isinstance(plain, PlainFormatter)
        else PlainFormatter(plain or logging.Formatter(PLAIN), hooks)
    )


class PlainFormatter(logging.Formatter):
    """Writes the lines of another formatter, redacted while a task runs."""

    def __init__(self, inner: logging.Formatter, hooks: Hooks = _BUILT_IN) -> None:
        super().__init__()
        self._inner, self._hooks = inner, hooks

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = self._inner.format(record)
        return text if running_context() is None else _redact_line(text, self._hooks)


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line.

    It always has `time` (UTC), `level`, `logger` and `message`. It has `task`, `kind`, `batch`, `trace` and
    `error` (a traceback) if there is one.
    """

    def __init__(self, hooks: Hooks = _BUILT_IN) -> None:
        super().__init__()
        self._hooks = hooks

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            **self._task_fields(record),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _redact_line(record.getMessage(), self._hooks),
            "process": record.process,
        }
        if record.exc_info:
            line["error"] = _redact_line(self.formatException(record.exc_info), self._hooks)
        return dumps(line, default=str)

    def _task_fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Return the task of a line: the one in its `data`, or the one that runs in this thread."""
        context = running_context()
        fields: dict[str, Any] = {}
        if context is not None:
            for hook in self._hooks.log_fields:
                fields |= hook(context)
        said = getattr(record, "data", None)
        if isinstance(said, dict):
            fields |= {"task": said.get("id"), "kind": said.get("name")}
        return {name: str(value) for name, value in fields.items() if value}


def _redact_line(text: str, hooks: Hooks) -> str:
    """Return a line without the texts that the middleware redacts for the task that runs in this thread."""
    context = running_context()
    if context is not None:
        for hook in hooks.redact:
            text = hook(text, context)
    return text
