"""Write samples of the history from Flower too, so that there is a history while no worker runs."""

import logging
from typing import Any

from tornado.ioloop import PeriodicCallback

from millpond.broker.errors import BrokerError
from millpond.broker.stats import history

logger = logging.getLogger(__name__)

#: The time between two checks whether samples are due.
CHECK_MS = 1_000


def start_sampling(application: Any) -> None:
    """Start a timer on Flower's event loop that writes history samples when they are due.

    It checks once a second, in a thread, and checks do not overlap. `application` has `io_loop` and `store`.
    """

    async def write_in_thread() -> None:
        await application.io_loop.run_in_executor(None, _write_samples_if_due, application.store)

    PeriodicCallback(write_in_thread, CHECK_MS).start()


def _write_samples_if_due(store: Any) -> None:
    """Write the samples if they are due and no other process writes them.

    An error of the broker is only logged.
    """
    try:
        if history.take_sampling_lock(store):
            history.write_samples(store)
    except BrokerError as error:
        logger.debug("%s", error)
