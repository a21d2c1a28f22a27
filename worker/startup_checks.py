"""The checks at the start of a worker: can the broker be used, may it lose messages, are time limits kept."""

import logging
import os
import sys
from typing import Any

from celery import Celery, signals

from millpond.broker import cluster
from millpond.broker.connection import connect
from millpond.broker.errors import BadBrokerUrl, MillpondError
from millpond.broker.server import find_durability_risks
from millpond.tasks.pools import LIMITS_REMEDY
from millpond.tasks.settings import Settings
from millpond.worker.celery.stock_tasks import backends_without_results

logger = logging.getLogger(__name__)


def install(app: Celery, settings: Settings) -> None:
    """Check the broker's URL and the time limits when a worker of this application starts.

    Durability is checked once it is ready.
    """

    def check_settings(**_: Any) -> None:
        """Log a warning for time limits and result backends that have no effect.

        Print the reason and exit with `EX_CONFIG` if the broker's URL cannot be used.
        """
        try:
            notice = cluster.check_cluster_at_start(settings.broker_url or "", **settings.broker_options)
        except BadBrokerUrl as error:
            print(f"millpond: {error}", file=sys.stderr)
            sys.exit(os.EX_CONFIG)
        if notice:
            logger.info("%s", notice)
        if settings.app is None:
            for line in backends_without_results(settings.kinds):
                logger.warning("%s", line)
        for pool in app.in_flight.pools:
            for fault in settings.table.limits_not_kept(pool):
                logger.warning("%s: %s", fault, LIMITS_REMEDY)

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

    app.startup_checks = check_settings, check_durability  # signals keep weak references
    signals.celeryd_after_setup.connect(check_settings)
    signals.worker_ready.connect(check_durability)
