"""End a worker process in three steps: stop fetching, finish running tasks, release the rest at the deadline.

Celery's warm shutdown does the first two without a deadline, and this module adds the deadline. A second
signal moves it to now. In a drained pool running tasks have the same deadline. If a task still runs then, the
process ends, and its supervisor starts another, which waits until the pool is resumed.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import billiard
from celery import Celery, signals

from millpond.broker.connection import Store, connect, translate_errors
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import end_leases
from millpond.broker.control import state
from millpond.broker.errors import BrokerError, MillpondError
from millpond.tasks.settings import Settings
from millpond.worker.supervise.process_tree import kill_with_descendants

logger = logging.getLogger(__name__)

#: How long the end of the process waits for a thread that settles.
_LOCK_SECONDS = 1.0

#: The seconds between two reads of the control state while the process stops.
_READ_SECONDS = 0.5


class Drain:
    """The deadline of the tasks that run in this process, before it stops or while its pool is drained."""

    def __init__(self, settings: Settings, in_flight: InFlightMessages) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._timer: threading.Timer | None = None
        self._drained = False

    def on_signal(self, **_: Any) -> None:
        """Begin to drain. End the process now if it drains already."""
        is_second, self._in_flight.draining = self._in_flight.draining, True
        self._set_deadline(0.0 if is_second else self._settings.drain_seconds)

    def apply_pool_drain(self, drained: bool) -> None:
        """Set the deadline of running tasks if the pool was drained, and cancel it if the pool was resumed.

        Does nothing if neither has changed, or the process stops.
        """
        if drained == self._drained or self._in_flight.draining:
            return
        self._drained = drained
        logger.info("the pool is drained: nothing more is started" if drained else "the pool is resumed")
        self._cancel_deadline()
        if drained:
            self._set_deadline(self._settings.drain_seconds, unless_idle=True)

    def on_stopped(self, **_: Any) -> None:
        """Cancel the deadline, because all tasks have ended."""
        self._cancel_deadline()

    def set_pools(self, instance: Any, **_: Any) -> None:
        """Set the pools of this process by the queues that it consumes, unless they are set."""
        if not self._in_flight.pools:
            queues = set(instance.app.amqp.queues.consume_from)
            pools = self._settings.table.pools
            self._in_flight.pools = tuple(name for name, pool in pools.items() if queues & set(pool.queues))

    def _cancel_deadline(self) -> None:
        """Cancel the deadline, if one is set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_deadline(self, seconds: float, *, unless_idle: bool = False) -> None:
        """End this process in `seconds`, in place of an earlier deadline.

        `unless_idle`: only if a message is in flight then.
        """
        self._cancel_deadline()
        self._timer = threading.Timer(seconds, self._end_process, (unless_idle,))
        self._timer.daemon = True
        self._timer.start()

    def _end_process(self, unless_idle: bool) -> None:
        """Kill the children, release the messages in flight, and exit with 0, without losing a task.

        Does nothing if `unless_idle` and no message is in flight.
        """
        if unless_idle and not self._in_flight.count:
            return
        logger.warning("the drain deadline has passed: running tasks are killed and go back to their queue")
        # With the lock no other thread settles from here on. Otherwise the tasks of the children that are
        # killed here would count as delivered. The lock may be with a thread that waits for a broker that
        # does not reply, so it is not waited for without end.
        self._in_flight.lock.acquire(timeout=_LOCK_SECONDS)
        try:
            for child in billiard.active_children():
                kill_with_descendants(child.pid)
            self._release_in_flight()
        except Exception:  # the process must end in any case: the lock is never released
            logger.exception("Messages in flight become ready again when their lease expires.")
        logging.shutdown()
        os._exit(0)

    def _release_in_flight(self) -> None:
        """Settle the messages whose tasks have ended, release the others, and end the leases."""
        if self._in_flight.fetcher is not None:
            self._in_flight.fetcher.drop_call()  # else it could settle the same deliveries again
        try:
            store = connect(
                self._settings.broker_url or "", prefix=self._settings.key_prefix, timeout_seconds=2
            )
            with translate_errors("releasing the messages in flight"):
                end_leases(store, self._in_flight)
        except MillpondError as error:
            logger.warning("%s Messages in flight become ready again when their lease expires.", error)


def keep_reading_control(store: Store, in_flight: InFlightMessages) -> Callable[[], None]:
    """Read the control state into `in_flight` in a thread, and return the function that stops the thread.

    It is for a process that stops, whose event loop no longer receives the control state. A broker that hangs
    blocks the thread alone.
    """
    stopped = threading.Event()

    def read() -> None:
        while not stopped.wait(_READ_SECONDS):
            with suppress(BrokerError):  # the process stops without a broker too
                in_flight.control = state.read_state(store)

    threading.Thread(target=read, name="millpond-shutdown", daemon=True).start()
    return stopped.set


def install(app: Celery, settings: Settings, in_flight: InFlightMessages) -> None:
    """Drain this application's workers at every shutdown."""
    app.drain = drain = Drain(settings, in_flight)  # signals keep weak references
    signals.celeryd_after_setup.connect(drain.set_pools)
    signals.worker_shutting_down.connect(drain.on_signal)
    signals.worker_shutdown.connect(drain.on_stopped)
