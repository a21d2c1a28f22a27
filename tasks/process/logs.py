"""Write log lines: plain ones, or a JSON object each with the task, its kind, batch and trace.

Either way the secrets of the task that runs in this thread are cut out of every line that is logged
meanwhile, by any logger.
"""

import logging
from datetime import UTC, datetime
from json import dumps
from typing import Any

from millpond.broker.message import BadMessage
from millpond.tasks.contract import kinds
from millpond.tasks.execute import running
from millpond.tasks.redaction import hides, scrubbed, secrets_in

PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"


def log_to_stderr(log_format: str, *, level: int = logging.INFO) -> None:
    """Log to stderr from now on, as the setting `log_format` says: `plain` or `json`."""
    logging.basicConfig(format=PLAIN, level=level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter(log_format, handler.formatter))


def formatter(log_format: str, plain: logging.Formatter | None = None) -> logging.Formatter:
    """Return the formatter for a format; plain lines are written by `plain`."""
    if log_format == "json":
        return JsonLines()
    return plain if isinstance(plain, Scrubbing) else Scrubbing(plain or logging.Formatter(PLAIN))


class Scrubbing(logging.Formatter):
    """Write the lines of another formatter, without the secrets of the task that runs."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = self._inner.format(record)
        return text if running() is None else _without_secrets(text)


class JsonLines(logging.Formatter):
    """Write one JSON object a line.

    `time` (UTC), `level`, `logger` and `message` always; `task`, `kind`, `batch`, `trace` and `error` (a
    traceback) where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _without_secrets(record.getMessage()),
            "process": record.process,
            **_about_task(record),
        }
        if record.exc_info:
            line["error"] = _without_secrets(self.formatException(record.exc_info))
        return dumps(line, default=str)


def _about_task(record: logging.LogRecord) -> dict[str, str]:
    """Name the task that a line is about: the one that it says, or the one that runs in this thread."""
    context = running()
    found: dict[str, Any] = {}
    if context is not None and context.message is not None:
        message = context.message
        trace = _trace_of(message.traceparent)
        found = {"task": message.id, "kind": message.kind, "batch": message.batch, "trace": trace}
    said = getattr(record, "data", None)
    if isinstance(said, dict):
        found |= {"task": said.get("id"), "kind": said.get("name")}
    return {name: str(value) for name, value in found.items() if value}


def _trace_of(parent: Any) -> str | None:
    """Return the trace of a traceparent."""
    return parent.split("-")[1] if isinstance(parent, str) and parent.count("-") == 3 else None


def _without_secrets(text: str) -> str:
    """Cut out of a text the secrets of the task that runs in this thread."""
    context = running()
    contract = None if context is None else kinds().get(context.kind)
    if context is None or context.message is None or contract is None or not hides(contract):
        return text
    try:
        args, kwargs, _embed = context.message.arguments
    except BadMessage:
        return text
    return scrubbed(text, secrets_in(contract, args, kwargs))
