"""The workers' logging: the format of the settings, with the secrets of tasks cut out of every line."""

import logging
import sys
from typing import Any

from celery import Celery, signals

from millpond.tasks.process.logs import JsonFormatter, make_formatter
from millpond.tasks.settings import Settings


def install(app: Celery, settings: Settings) -> None:
    """Prepare the logging of this application's workers. Celery sets it up when they start."""
    app.log_cls = "millpond.worker.report.stdout_logging:StdoutLogging"

    def set_up(loglevel: int, **_: Any) -> None:
        """Replace the handlers of the root logger by one that writes JSON."""
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter(app.hooks[0]))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(loglevel)
        app.log.redirect_stdouts("WARNING")  # output of handlers is logged too, also in children

    def set_formatters(logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            handler.setFormatter(make_formatter("plain", handler.formatter, app.hooks[0]))

    # Signals keep weak references.
    app.log_set_up = set_up if settings.log_format == "json" else set_formatters
    if settings.log_format == "json":
        signals.setup_logging.connect(set_up)
    else:
        signals.after_setup_logger.connect(set_formatters)
        signals.after_setup_task_logger.connect(set_formatters)
