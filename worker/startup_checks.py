"""The checks at the start of a worker: whether the broker can be used, and whether it may lose messages."""

import logging
import os
import sys
from typing import Any

from celery import Celery, signals

from millpond.broker import cluster
from millpond.broker.connection import connect
from millpond.broker.errors import BadBrokerUrl, MillpondError
from millpond.broker.server import find_durability_risks
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)


def install(app: Celery, settings: Settings) -> None:
    """Check the broker's URL when a worker of this application starts, and durability once it is ready."""

    def check_url(**_: Any) -> None:
        """Print the reason and exit with `EX_CONFIG` if the broker's URL cannot be used."""
        try:
            notice = cluster.check_cluster_at_start(settings.broker_url or "", **settings.broker_options)
        except BadBrokerUrl as error:
            print(f"millpond: {error}", file=sys.stderr)
            sys.exit(os.EX_CONFIG)
        if notice:
            logger.info("%s", notice)

    def check_durability(**_: Any) -> None:
        """Log a warning for each way in which the broker may lose messages."""
        try:
            store = connect(
                settings.broker_url or "",
                timeout_seconds=settings.broker_timeout_seconds,
                copies=settings.send_copies,
            )
            for risk in find_durability_risks(store) or ():
                logger.warning("%s", risk)
            store.close()
        except MillpondError as error:
            logger.warning("%s", error)

    app.startup_checks = check_url, check_durability  # signals keep weak references
    signals.celeryd_after_setup.connect(check_url)
    signals.worker_ready.connect(check_durability)
