"""Log what bodies print, a record for each `print`.

Celery logs each write by itself, and `print` writes once for every argument and once for every space.
"""

import logging
import sys
import threading
from typing import Any

from celery.app.log import Logging
from celery.utils.log import LoggingProxy
from kombu.utils.encoding import safe_str

#: Characters that are kept until a line ends.
_LONGEST = 10_000


class PrintLogging(Logging):
    """Be Celery's logging, but for what is done with standard output."""

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Put a stream that logs in the place of the standard ones, and return it."""
        prints = Prints(logger, loglevel)
        if stdout:
            sys.stdout = prints
        if stderr:
            sys.stderr = prints
        return prints


class Prints(LoggingProxy):
    """Log what has been written once a write ends a line, or it is flushed; threads do not mix theirs.

    Lines that are printed together stay together: a secret of several lines is cut out as a whole.
    """

    def __init__(self, logger: logging.Logger, loglevel: Any = None) -> None:
        super().__init__(logger, loglevel)
        self._begun = threading.local()

    def write(self, data: str) -> int:
        """Log what ends here, and keep what goes on."""
        self._begun.text = getattr(self._begun, "text", "") + safe_str(data)
        if data.endswith("\n") or len(self._begun.text) > _LONGEST:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Log what has been written and not logged."""
        text, self._begun.text = getattr(self._begun, "text", ""), ""
        super().write(text)
