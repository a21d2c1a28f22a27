"""Write the state of this worker process to its heartbeat file once a second, for health checks.

A thread writes the file, which tasks/process/health.py reads. The event loop only records that it turns. The
thread itself asks the broker whether the queues have fetchable messages. So a worker that fails to fetch can
be told from a worker with empty queues.
"""

import logging
import math
import threading
from typing import Any

from celery import Celery, signals

from millpond.broker.connection import Store, connect
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.errors import MillpondError
from millpond.broker.inspect.depth import read_fetchable_limits
from millpond.broker.server import elapsed_seconds
from millpond.tasks.process.application_record import record_application
from millpond.tasks.process.heartbeat_file import HEARTBEAT_SECONDS, HeartbeatFile, boot_clock
from millpond.tasks.process.process_namespace import namespace_of
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)

#: The time between two checks of the broker and its queues.
CHECK_SECONDS = 2.0

#: The longest time-out of these checks.
_TIMEOUT_SECONDS = 4.0

#: The time that a worker with a free slot may leave fetchable messages on its queues.
PATIENCE_SECONDS = 60.0


class HealthReporter:
    """Writes the heartbeat file of one worker process, from its set-up to its end."""

    def __init__(self, settings: Settings, in_flight: InFlightMessages) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._queues: list[str] = []
        self._loop_alive_at = boot_clock()
        self._checked_at = 0.0
        #: The counts of fetched and settled messages at the last check.
        self._last_counts: object = None
        #: When this thread first saw each lease (`elapsed_seconds`), by the name of its consumer.
        self._first_seen: dict[str, float] = {}
        self._broker_state: dict[str, float | bool | None] = {
            "broker_answered_at": None,
            "stalled_since": None,
        }

    def record_loop_alive(self) -> None:
        """Record that the event loop turns, or waits for the broker as intended."""
        self._loop_alive_at = boot_clock()

    def on_set_up(self, sender: str, instance: Any, **_: Any) -> None:
        """Start the thread for the worker named `sender`, which knows its queues and is not connected yet.

        If the file cannot be created, log a warning and write nothing.
        """
        self._queues = list(instance.app.amqp.queues.consume_from)
        service, number = _pool_and_number(sender, self._queues, self._settings)
        pool = self._settings.table.pools.get(service)
        namespace = namespace_of(self._settings.broker_url or "", self._settings.key_prefix)
        file = HeartbeatFile(service, number, expected=pool.processes if pool else 1, namespace=namespace)
        record_application(self._settings.app, namespace)
        try:
            file.open()
        except OSError as error:
            logger.warning("health checks cannot see this process: %s", error)
            return
        self._thread = threading.Thread(
            target=self._write_heartbeats, args=(file,), name="millpond-health", daemon=True
        )
        self._thread.start()

    def on_stopped(self, **_: Any) -> None:
        """Stop the thread, which removes the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _write_heartbeats(self, file: HeartbeatFile) -> None:
        """Write the file once a second until the worker stops, and check the broker every `CHECK_SECONDS`."""
        store = connect(
            self._settings.broker_url or "",
            prefix=self._settings.key_prefix,
            timeout_seconds=min(_TIMEOUT_SECONDS, self._settings.broker_timeout_seconds),
        )
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if boot_clock() - self._checked_at >= CHECK_SECONDS:
                self._checked_at = boot_clock()
                self._check_broker(store)
            file.write(
                loop_at=self._loop_alive_at,
                has_lease=self._has_leases(),
                draining=self._in_flight.draining,
                **self._broker_state,
            )
        file.remove()

    def _check_broker(self, store: Store) -> None:
        """Record whether the broker replies, and since when fetchable messages wait and none was fetched."""
        try:
            fetchable = read_fetchable_limits(store, self._queues)
        except MillpondError as error:
            logger.debug("%s", error)
            self._broker_state["broker_answered_at"] = 0.0
            return
        self._broker_state["broker_answered_at"] = boot_clock()
        counts, last_counts = self._in_flight.fetched_and_settled, self._last_counts
        self._last_counts = counts
        if not fetchable or counts != last_counts or self._in_flight.drained:
            self._broker_state["stalled_since"] = None
        elif self._broker_state["stalled_since"] is None:
            self._broker_state["stalled_since"] = boot_clock()
        lowest_rate = min((limits.rate for limits in fetchable if limits.rate), default=0.0)
        self._broker_state["stall_limit_seconds"] = max(
            self._patience_seconds(), 2 / lowest_rate if lowest_rate else 0.0
        )

    def _patience_seconds(self) -> float:
        """Return the time for which fetchable messages may wait.

        While all slots are busy, the longest hard time limit of the queues is added.
        """
        if self._in_flight.room:
            return PATIENCE_SECONDS
        queues = self._settings.table.queues
        limits = [queues[name].hard_limit_seconds for name in self._queues if name in queues]
        return PATIENCE_SECONDS + max(limits, default=0.0)

    def _has_leases(self) -> bool:
        """True if there are leases and all of them are valid."""
        leases, now = tuple(self._in_flight.leases.values()), elapsed_seconds()
        self._first_seen = {lease.consumer: self._first_seen.get(lease.consumer, now) for lease in leases}
        return bool(leases) and all(
            lease.registered and not lease.lease_lost and self._valid_until(lease) > now for lease in leases
        )

    def _valid_until(self, lease: QueueLease) -> float:
        """Return the time at which a lease expires unless it is renewed: the end of its present term."""
        if math.isfinite(lease.leased_until):  # it was renewed
            return lease.leased_until
        first_term_ms = lease.term_ms(self._in_flight.lease_renewer.lease_ms)
        return self._first_seen[lease.consumer] + first_term_ms / 1000


def _pool_and_number(hostname: str, queues: list[str], settings: Settings) -> tuple[str, int]:
    """Return the pool and the number of a worker named `email.1@host`: `email` and 1.

    For a name of another form, return the pools of its queues joined by `+`, and 1.
    """
    pool, _, number = hostname.partition("@")[0].rpartition(".")
    if pool in settings.table.pools and number.isdigit():
        return pool, int(number)
    pools = dict.fromkeys(pool for queue in queues for pool in settings.table.pools_of(queue))
    return "+".join(pools) or "other", 1


def install(app: Celery, settings: Settings, in_flight: InFlightMessages) -> None:
    """Write the heartbeat file of every worker of this application."""
    app.health = health = HealthReporter(settings, in_flight)  # signals keep weak references
    signals.celeryd_after_setup.connect(health.on_set_up)
    signals.worker_shutdown.connect(health.on_stopped)
