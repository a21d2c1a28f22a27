"""Logs the output of handlers, one record for each `print`.

Celery logs each write, and `print` writes once for every argument and every space. The stream that logs
has the parts that code expects of standard output: a descriptor, bytes, an encoding.
"""

import codecs
import io
import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any, NoReturn

from celery.app.log import Logging
from celery.utils.log import LoggingProxy
from kombu.utils.encoding import safe_str

#: The maximum of buffered characters of a line. A longer line is logged in parts.
_LONGEST = 10_000


class StdoutLogging(Logging):
    """Celery's logging, with other streams in the place of the standard ones."""

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Replace the standard streams by streams that log. Return the one of standard output."""
        prints = PrintedLines(logger, loglevel, standard=sys.__stdout__)
        if stdout:
            sys.stdout = prints
        if stderr:
            sys.stderr = PrintedLines(logger, loglevel, standard=sys.__stderr__)
        return prints


class PrintedLines(LoggingProxy, io.TextIOBase):
    """A stream that logs written text when a write ends a line, or on flush. Each thread has its own buffer.

    Lines of one write stay in one record, so a secret of several lines is cut out as a whole. `standard` is
    the stream that this one replaces: child processes of a handler write to its descriptor.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    write_through = False

    def __init__(self, logger: logging.Logger, loglevel: Any = None, *, standard: Any = None) -> None:
        super().__init__(logger, loglevel)
        self.name = getattr(standard, "name", "<stdout>")
        self.buffer = _Bytes(self)
        self._standard = standard
        self._begun = threading.local()

    def write(self, data: str) -> int:
        """Buffer the text, and log it if it ends a line."""
        self._begun.text = getattr(self._begun, "text", "") + safe_str(data)
        if data.endswith("\n") or len(self._begun.text) > _LONGEST:
            self.flush()
        return len(data)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write the lines together."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Log the buffered text."""
        text, self._begun.text = getattr(self._begun, "text", ""), ""
        super().write(text)

    def close(self) -> None:
        """Flush, and stay open: the whole process shares the stream."""
        self.flush()

    def fileno(self) -> int:
        """Return the descriptor of the replaced stream. Raises `OSError` if it has none."""
        if self._standard is None:
            raise io.UnsupportedOperation("fileno")
        self.flush()
        return int(self._standard.fileno())

    def writable(self) -> bool:
        """True if text can be written, which is always so."""
        return True

    def reconfigure(self, **_: Any) -> None:
        """Change nothing: a record of the log has no encoding or buffer of its own."""

    def detach(self) -> NoReturn:
        """Raise `OSError`, as a stream without a buffer of its own does."""
        raise io.UnsupportedOperation("detach")


class _Bytes(io.BufferedIOBase):
    """The binary buffer of a stream that logs: decodes the bytes and writes them to the stream."""

    mode = "wb"

    def __init__(self, text: PrintedLines) -> None:
        self._text = text
        self._begun = threading.local()

    @property
    def name(self) -> str:
        """The name of the stream."""
        return str(self._text.name)

    def write(self, data: Any) -> int:
        """Write all complete characters. A character may be split between writes."""
        if not hasattr(self._begun, "decoder"):
            self._begun.decoder = codecs.getincrementaldecoder("utf-8")(PrintedLines.errors)
        self._text.write(self._begun.decoder.decode(bytes(data)))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Log the buffered text."""
        self._text.flush()

    def close(self) -> None:
        """Flush, and stay open."""
        self.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._text.fileno()

    def writable(self) -> bool:
        """True if text can be written, which is always so."""
        return True
