"""Take the samples of the last hour from Flower too, so that a queue without a worker has a past to show."""

import logging
from typing import Any

from tornado.ioloop import PeriodicCallback

from millpond.broker.errors import BrokerError
from millpond.broker.stats import history

logger = logging.getLogger(__name__)

#: The time between two looks whether it is time for samples.
LOOK_MS = 1_000


def install(application: Any) -> None:
    """Look once a second, in a thread, whether samples are to be taken; a look waits for the one before."""

    async def look() -> None:
        await application.io_loop.run_in_executor(None, _take_if_due, application.store)

    PeriodicCallback(look, LOOK_MS).start()


def _take_if_due(store: Any) -> None:
    try:
        if history.is_due(store):
            history.write_samples(store)
    except BrokerError as error:
        logger.debug("%s", error)
