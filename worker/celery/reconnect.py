"""Connect again after a lost connection: at once, then with growing waits, each worker in its own time."""

import logging
import random
from collections.abc import Callable
from typing import Any

from celery.worker.state import maybe_shutdown

logger = logging.getLogger(__name__)

#: The longest wait between two attempts is a random number of seconds between these.
LONGEST_SECONDS = (2.0, 5.0)


def reconnect(connection: Any, on_wait: Callable[[], None]) -> Any:
    """Connect with random, growing waits until the broker answers, and return the connection.

    Calls `on_wait` at least every two seconds meanwhile. Raises `WorkerShutdown` or `WorkerTerminate` if the
    worker is stopped meanwhile. With Celery's own fixed waits of 2, 4, 6 … 30 s all workers would connect at
    the same moment, and late.
    """

    def log_attempt(error: Exception, seconds: float) -> None:
        logger.error("%s cannot be reached: %s Trying again in %.1f s", connection.as_uri(), error, seconds)

    def check_shutdown() -> None:
        on_wait()
        maybe_shutdown()

    return connection.ensure_connection(
        log_attempt,
        interval_start=random.uniform(0.05, 0.3),
        interval_step=random.uniform(0.1, 0.5),
        interval_max=random.uniform(*LONGEST_SECONDS),
        callback=check_shutdown,
    )
