"""The checks at the start of a worker: can its broker be used, and may it lose messages?"""

import logging
import os
import sys
from typing import Any

from celery import Celery, signals

from millpond.broker import cluster
from millpond.broker.connection import connect
from millpond.broker.errors import BadBrokerUrl, MillpondError
from millpond.broker.server import durability_risks
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)


def install(app: Celery, settings: Settings) -> None:
    """Check the broker as a worker of this application starts, and again once it is ready."""

    def check_broker(**_: Any) -> None:
        """End the worker, with the reason in one line, if its broker's URL cannot be used."""
        try:
            said = cluster.check_at_start(settings.broker_url or "", **settings.broker_options)
        except BadBrokerUrl as error:
            print(f"millpond: {error}", file=sys.stderr)
            sys.exit(os.EX_CONFIG)
        if said:
            logger.info("%s", said)

    def check(**_: Any) -> None:
        """Log each way in which the broker may lose messages."""
        try:
            store = connect(
                settings.broker_url or "",
                timeout_seconds=settings.broker_timeout_seconds,
                copies=settings.send_copies,
            )
            for risk in durability_risks(store):
                logger.warning("%s", risk)
            store.close()
        except MillpondError as error:
            logger.warning("%s", error)

    app.check_broker = check_broker, check  # signals keep weak references
    signals.celeryd_after_setup.connect(check_broker)
    signals.worker_ready.connect(check)
