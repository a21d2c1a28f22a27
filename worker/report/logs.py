"""Set up the logging of workers in the format of the settings, without the secrets of tasks."""

import logging
import sys
from typing import Any

from celery import Celery, signals

from millpond.tasks.process.logs import JsonFormatter, make_formatter
from millpond.tasks.settings import Settings


def install(app: Celery, settings: Settings) -> None:
    """Make Celery set up the logging of this application's workers as the settings have it."""
    app.log_cls = "millpond.worker.report.stdout_logging:StdoutLogging"

    def use_json_handler(loglevel: int, **_: Any) -> None:
        """Replace the handlers of the root logger by one that writes JSON."""
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter(app.hooks[0]))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(loglevel)
        app.log.redirect_stdouts("WARNING")  # output of handlers is logged too, also in children

    def set_formatters(logger: logging.Logger, **_: Any) -> None:
        """Keep the handlers of a logger and their formats, and cut secrets from their lines."""
        for handler in logger.handlers:
            handler.setFormatter(make_formatter("plain", handler.formatter, app.hooks[0]))

    app.log_receivers = use_json_handler, set_formatters  # signals keep weak references
    if settings.log_format == "json":
        signals.setup_logging.connect(use_json_handler)
    else:
        signals.after_setup_logger.connect(set_formatters)
        signals.after_setup_task_logger.connect(set_formatters)
