"""End a worker process in three steps: stop fetching, finish what runs, give back what is left at the
deadline.

Celery's warm shutdown does the first two without a deadline; this watches over it. A second signal is a
deadline of now.
"""

import logging
import os
import signal
import threading
from typing import Any

import billiard
from celery import Celery, signals

from broker.connection import clear_errors, connect
from broker.errors import MillpondError
from broker.holding import Holder
from broker.leases import leave
from tasks.settings import Settings

logger = logging.getLogger(__name__)


class Drain:
    """Watch over the shutdown of this process."""

    def __init__(self, settings: Settings, holder: Holder) -> None:
        self._settings = settings
        self._holder = holder
        self._timer: threading.Timer | None = None

    def on_signal(self, **_: Any) -> None:
        """Begin to drain; when already draining, end now."""
        self._holder.draining = True
        if self._timer is None:
            self._start(self._settings.drain_seconds)
        else:
            self._timer.cancel()
            self._start(0.0)

    def on_stopped(self, **_: Any) -> None:
        """Call the watch off: the pool is empty."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        """Kill what still runs, give back what is held, and leave with 0: nothing is lost."""
        logger.warning("the drain deadline has passed; what still runs is cut off and goes back to its queue")
        for child in billiard.active_children():
            os.kill(child.pid, signal.SIGKILL)
        try:
            store = connect(
                self._settings.broker_url or "", prefix=self._settings.key_prefix, timeout_seconds=2
            )
            with clear_errors("giving back what is held"):
                leave(store, self._holder)
        except MillpondError as error:
            logger.warning("%s What is held comes back when its lease runs out.", error)
        logging.shutdown()
        os._exit(0)


def install(app: Celery, settings: Settings, holder: Holder) -> None:
    """Make a drain of every shutdown of this application's workers."""
    app.drain = drain = Drain(settings, holder)  # signals keep weak references
    signals.worker_shutting_down.connect(drain.on_signal)
    signals.worker_shutdown.connect(drain.on_stopped)
