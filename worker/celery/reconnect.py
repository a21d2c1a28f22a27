"""Connect again after a lost connection: at once, then with growing waits, each worker in its own time."""

import logging
import random
from collections.abc import Callable
from typing import Any

from celery.worker.state import maybe_shutdown

logger = logging.getLogger(__name__)

#: The longest wait between two attempts lies between these, seconds.
LONGEST_SECONDS = (2.0, 5.0)


def reconnect(connection: Any, on_wait: Callable[[], None]) -> Any:
    """Return the connection once it stands, however long that takes, unless the worker is told to stop.

    Calls `on_wait` at least every two seconds meanwhile. Celery waits 2, 4, 6 … 30 s, the same in every
    worker: long after the broker is back, and all at once.
    """

    def tell(error: Exception, seconds: float) -> None:
        logger.error("%s cannot be reached: %s Trying again in %.1f s", connection.as_uri(), error, seconds)

    def look_up() -> None:
        on_wait()
        maybe_shutdown()

    return connection.ensure_connection(
        tell,
        interval_start=random.uniform(0.05, 0.3),
        interval_step=random.uniform(0.1, 0.5),
        interval_max=random.uniform(*LONGEST_SECONDS),
        callback=look_up,
    )
