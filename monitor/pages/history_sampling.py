"""Flower writes samples of the history too, so that there is one without any worker."""

import logging
from typing import Any

from tornado.ioloop import PeriodicCallback

from millpond.broker.errors import BrokerError
from millpond.broker.stats import history

logger = logging.getLogger(__name__)

#: The time between two looks whether samples are due.
LOOK_MS = 1_000


def install(application: Any) -> None:
    """Start a timer on Flower's event loop that writes history samples when they are due.

    It checks once a second, in a thread, and checks do not overlap. `application` has `io_loop` and `store`.
    """

    async def look() -> None:
        await application.io_loop.run_in_executor(None, _write_if_due, application.store)

    PeriodicCallback(look, LOOK_MS).start()


def _write_if_due(store: Any) -> None:
    """Write the samples if it is this process's turn. An error of the broker is only logged."""
    try:
        if history.take_sampling_turn(store):
            history.write_samples(store)
    except BrokerError as error:
        logger.debug("%s", error)
