"""Check once, when a worker is ready, how its broker may lose messages, and log it."""

import logging
from typing import Any

from celery import Celery, signals

from millpond.broker.connection import connect
from millpond.broker.errors import MillpondError
from millpond.broker.server import durability_risks
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)


def install(app: Celery, settings: Settings) -> None:
    """Check the broker when a worker of this application is ready."""

    def check(**_: Any) -> None:
        try:
            store = connect(settings.broker_url or "", timeout_seconds=settings.broker_timeout_seconds)
            for risk in durability_risks(store):
                logger.warning("%s", risk)
            store.close()
        except MillpondError as error:
            logger.warning("%s", error)

    app.check_broker = check  # signals keep weak references
    signals.worker_ready.connect(check)
