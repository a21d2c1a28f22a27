"""Format log lines as plain text or as a JSON object each.

Middleware (log_middleware.py) changes the lines that any logger writes while a task runs in this thread: it
adds the task to JSON lines, and cuts the task's secrets out.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from json import dumps
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.execute import running_context
from millpond.tasks.middleware import Hooks, hook_name
from millpond.tasks.process.log_middleware import LOG_MIDDLEWARE

logger = logging.getLogger(__name__)

PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"

_BUILT_IN = Hooks(LOG_MIDDLEWARE)

#: The names of the `log_fields` of middleware that have failed in this process.
_failed_hooks: set[str] = set()

#: The logger above all of Millpond's.
_OWN = logging.getLogger("millpond")


def log_to_stderr(log_format: str, *, level: int = logging.INFO) -> None:
    """Make the root logger write to stderr. `log_format` is that of the settings: `plain` or `json`."""
    logging.basicConfig(format=PLAIN, level=level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(make_formatter(log_format, handler.formatter))


def log_own_to_stderr(log_format: str) -> None:
    """Make Millpond's loggers alone write to stderr, until `end_own_log`.

    The root logger stays as it is: `logging.basicConfig` of an application does nothing if it has a handler.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(make_formatter(log_format))
    _OWN.handlers[:] = [handler]
    _OWN.propagate = False
    _OWN.setLevel(logging.INFO)


def end_own_log() -> None:
    """Undo `log_own_to_stderr`: the handlers of the root logger write Millpond's lines from now on."""
    if not _OWN.propagate:
        _OWN.handlers.clear()
        _OWN.propagate = True
        _OWN.setLevel(logging.NOTSET)


def make_formatter(
    log_format: str, plain_formatter: logging.Formatter | None = None, hooks: Hooks = _BUILT_IN
) -> logging.Formatter:
    """Return the formatter for `plain` or `json`. Plain lines are written by `plain_formatter`."""
    if log_format == "json":
        return JsonFormatter(hooks)
    if isinstance(plain_formatter, PlainFormatter):
        return plain_formatter
    return PlainFormatter(plain_formatter or logging.Formatter(PLAIN), hooks)


class PlainFormatter(logging.Formatter):
    """Writes the lines of another formatter, redacted while a task runs."""

    def __init__(self, formatter: logging.Formatter, hooks: Hooks = _BUILT_IN) -> None:
        super().__init__()
        self._formatter, self._hooks = formatter, hooks

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return _redact_text(self._formatter.format(record), record, self._hooks)


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line.

    It always has `time` (UTC), `level`, `logger`, `message` and `process`. It has `task`, `kind`, `batch` and
    `trace` while a task runs, and `error` (a traceback) if an error is logged.
    """

    def __init__(self, hooks: Hooks = _BUILT_IN) -> None:
        super().__init__()
        self._hooks = hooks

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            **self._task_fields(record),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _redact_text(record.getMessage(), record, self._hooks),
            "process": record.process,
        }
        if record.exc_info:
            line["error"] = _redact_text(self.formatException(record.exc_info), record, self._hooks)
        return dumps(line, default=str)

    def _task_fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Return the fields of the running task. The task in a record's `data` comes before it."""
        context = running_context()
        fields: dict[str, Any] = {}
        if context is not None:
            for hook in self._hooks.log_fields:
                fields |= _fields_of_hook(hook, context)
        data = getattr(record, "data", None)  # Celery's tracer and `execute` set it
        if isinstance(data, dict):
            fields |= {"task": data.get("id"), "kind": data.get("name")}
        return {name: str(value) for name, value in fields.items() if value}


def _fields_of_hook(hook: Callable[[Context], Mapping[str, Any]], context: Context) -> dict[str, str]:
    """Return the fields of one middleware, as text. Return none if it raises, and log its first error.

    A line must not be lost for a field of it.
    """
    try:
        return {str(name): str(value) for name, value in hook(context).items() if value}
    except Exception:
        name = hook_name(hook)
        if name not in _failed_hooks:
            _failed_hooks.add(name)  # before the next line, which is formatted here too
            logger.exception("%s failed, and log lines are written without its fields (logged once)", name)
        return {}


def _redact_text(text: str, record: logging.LogRecord, hooks: Hooks) -> str:
    """Return a text of a record as the middleware redacts it for the task of this thread.

    It is unchanged if no task runs. The secrets of the task's arguments are not searched again if the record
    says that it is free of them (`is_redacted`). If a middleware fails, the text is left out, as it may hold
    a secret.
    """
    context = running_context()
    if context is not None:
        done = _BUILT_IN.redact if getattr(record, "is_redacted", False) else ()
        for hook in hooks.redact:
            if hook not in done:
                text = _text_of_hook(hook, text, context)
    return text


def _text_of_hook(hook: Callable[[str, Context], str], text: str, context: Context) -> str:
    """Return a text as one middleware redacts it, or a note in place of the text if that fails."""
    try:
        redacted = hook(text, context)
        if isinstance(redacted, str):
            return redacted
        fault = f"returned {type(redacted).__name__}"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"raised {type(error).__name__} in {frame.filename}:{frame.lineno}"
    return f"[left out, as {hook_name(hook)} {fault}]"
