"""Celery's logging in a worker: log the output of handlers, with one record for each `print`.

Celery logs each write, and `print` writes once for every argument and every space. The stream here has also
the parts that code expects of standard output: a descriptor, a buffer for bytes, an encoding.
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

from millpond.tasks.process.logs import end_own_log

#: The maximum of buffered characters. A longer line is logged in parts.
_MOST_BUFFERED = 10_000


class StdoutLogging(Logging):
    """Celery's logging, which replaces the standard streams by those of this module.

    An application's own set-up of logging does not silence Millpond's loggers by default.
    """

    def setup_logging_subsystem(self, *args: Any, **options: Any) -> Any:
        """Set up logging as Celery or the application does, and enable Millpond's loggers.

        `logging.config.dictConfig` disables each existing logger that it does not name, unless it is told
        otherwise. The levels and handlers that it sets are kept.
        """
        end_own_log()
        receivers = super().setup_logging_subsystem(*args, **options)
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if name.partition(".")[0] == "millpond" and isinstance(logger, logging.Logger):
                logger.disabled = False
        return receivers

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Replace standard output and standard error by streams that log. Return that of standard output."""
        logging_stdout = LoggingStream(logger, loglevel, standard=sys.__stdout__)
        if stdout:
            sys.stdout = logging_stdout
        if stderr:
            sys.stderr = LoggingStream(logger, loglevel, standard=sys.__stderr__)
        return logging_stdout


class LoggingStream(LoggingProxy, io.TextIOBase):
    """A text stream that logs what is written, as soon as a write ends a line, and on flush.

    Each thread has a buffer of its own. Lines of one write stay in one record, so that a secret of several
    lines is cut out as a whole. `standard` is the stream that this one replaces: child processes of a handler
    write to its descriptor.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    write_through = False

    def __init__(self, logger: logging.Logger, loglevel: Any = None, *, standard: Any = None) -> None:
        super().__init__(logger, loglevel)
        self.name = getattr(standard, "name", "<stdout>")
        self.buffer = _ByteBuffer(self)
        self._standard = standard
        self._buffered = threading.local()

    def write(self, data: str) -> int:
        """Buffer the text. Log the buffer if the text ends a line, or if the buffer is full."""
        self._buffered.text = getattr(self._buffered, "text", "") + safe_str(data)
        if data.endswith("\n") or len(self._buffered.text) > _MOST_BUFFERED:
            self.flush()
        return len(data)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write the lines in one write, so that they are one record."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Log the buffered text."""
        text, self._buffered.text = getattr(self._buffered, "text", ""), ""
        super().write(text)

    def close(self) -> None:
        """Log the buffered text. The stream stays open, because the whole process shares it."""
        self.flush()

    def fileno(self) -> int:
        """Log the buffered text, and return the descriptor of the replaced stream.

        Raises `OSError` if it has none.
        """
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


class _ByteBuffer(io.BufferedIOBase):
    """The `buffer` of a `LoggingStream`: it decodes written bytes and writes the text to the stream."""

    mode = "wb"

    def __init__(self, stream: LoggingStream) -> None:
        self._stream = stream
        #: The decoder of each thread, with the bytes of an incomplete character.
        self._decoding = threading.local()

    @property
    def name(self) -> str:
        """The name of the stream."""
        return str(self._stream.name)

    def write(self, data: Any) -> int:
        """Write all complete characters. A character may be split between two writes."""
        if not hasattr(self._decoding, "decoder"):
            self._decoding.decoder = codecs.getincrementaldecoder("utf-8")(LoggingStream.errors)
        self._stream.write(self._decoding.decoder.decode(bytes(data)))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Log the text that the stream has buffered."""
        self._stream.flush()

    def close(self) -> None:
        """Log the buffered text. The stream stays open."""
        self.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """True if text can be written, which is always so."""
        return True
