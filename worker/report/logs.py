"""Log as the settings say, in Celery's place, and cut the secrets of tasks out of every line."""

import logging
import sys
from typing import Any

from celery import Celery, signals

from millpond.tasks.process.logs import JsonLines, formatter
from millpond.tasks.settings import Settings


def install(app: Celery, settings: Settings) -> None:
    """Prepare the logging of this application's workers; it is set up as they start."""
    app.log_cls = "millpond.worker.report.stdout_logging:PrintLogging"

    def set_up(loglevel: int, **_: Any) -> None:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonLines())
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(loglevel)
        app.log.redirect_stdouts("WARNING")  # what a body prints is a line too, in children as well

    def see_to(logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            handler.setFormatter(formatter("plain", handler.formatter))

    app.log_set_up = set_up if settings.log_format == "json" else see_to  # signals keep weak references
    if settings.log_format == "json":
        signals.setup_logging.connect(set_up)
    else:
        signals.after_setup_logger.connect(see_to)
        signals.after_setup_task_logger.connect(see_to)
