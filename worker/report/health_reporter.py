"""Writes the state of this worker process to its heartbeat file once a second, for health checks.

A thread writes the file (read by tasks/process/health.py). The event loop only records that it turns. The
thread reads from the broker itself whether the queues have fetchable messages. So a worker that fails to
fetch differs from a worker with empty queues.
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
from millpond.tasks.process.heartbeat_file import HEARTBEAT_SECONDS, HeartbeatFile, boot_clock
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)

#: The time between two looks at the queues, and the broker's time-out, in seconds.
LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 4.0

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
        self._turned_at = boot_clock()
        self._looked_at = 0.0
        self._seen: object = None
        self._first_seen: dict[str, float] = {}
        self._broker_state: dict[str, float | bool | None] = {
            "broker_answered_at": None,
            "stalled_since": None,
        }

    def record_loop_alive(self) -> None:
        """Record that the event loop turns, or waits for the broker as intended."""
        self._turned_at = boot_clock()

    def on_set_up(self, sender: str, instance: Any, **_: Any) -> None:
        """Start: the worker named `sender` knows its queues and has not connected yet."""
        self._queues = list(instance.app.amqp.queues.consume_from)
        service, number = _pool_and_number(sender, self._queues, self._settings)
        pool = self._settings.table.pools.get(service)
        file = HeartbeatFile(service, number, expected=pool.processes if pool else 1)
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
        """Stop writing, and remove the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _write_heartbeats(self, file: HeartbeatFile) -> None:
        """Write the heartbeat file once a second until the worker stops, and check the broker meanwhile."""
        store = connect(
            self._settings.broker_url or "",
            prefix=self._settings.key_prefix,
            timeout_seconds=min(_ANSWER_SECONDS, self._settings.broker_timeout_seconds),
        )
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if boot_clock() - self._looked_at >= LOOK_SECONDS:
                self._looked_at = boot_clock()
                self._check_broker(store)
            file.write(
                loop_at=self._turned_at,
                has_lease=self._has_leases(),
                draining=self._in_flight.draining,
                **self._broker_state,
            )
        file.close()

    def _check_broker(self, store: Store) -> None:
        """Record whether the broker replies, and since when fetchable messages wait untouched."""
        try:
            fetchable = read_fetchable_limits(store, self._queues)
        except MillpondError as error:
            logger.debug("%s", error)
            self._broker_state["broker_answered_at"] = None
            return
        self._broker_state["broker_answered_at"] = boot_clock()
        counts, before = self._in_flight.fetched_and_settled, self._seen
        self._seen = counts
        if not fetchable or counts != before or self._in_flight.drained:
            self._broker_state["stalled_since"] = None
        elif self._broker_state["stalled_since"] is None:
            self._broker_state["stalled_since"] = boot_clock()
        slowest = min((limits.rate for limits in fetchable if limits.rate), default=0.0)
        self._broker_state["stall_limit_seconds"] = max(
            self._allowed_seconds(), 2 / slowest if slowest else 0.0
        )

    def _allowed_seconds(self) -> float:
        """Return the time that messages may wait. With busy slots, a task's longest run time is added."""
        if self._in_flight.room:
            return PATIENCE_SECONDS
        queues = self._settings.table.queues
        limits = [queues[name].hard_limit_seconds for name in self._queues if name in queues]
        return PATIENCE_SECONDS + max(limits, default=0.0)

    def _has_leases(self) -> bool:
        """True if every lease is valid. A lease that was never renewed is valid for its first term."""
        leases, at = tuple(self._in_flight.leases.values()), elapsed_seconds()
        self._first_seen = {lease.consumer: self._first_seen.get(lease.consumer, at) for lease in leases}
        return bool(leases) and all(
            lease.registered and not lease.lease_lost and self._valid_until(lease) > at for lease in leases
        )

    def _valid_until(self, lease: QueueLease) -> float:
        """Return the time at which a lease expires unless it is renewed."""
        return min(lease.leased_until, self._first_seen[lease.consumer] + self._first_term_seconds(lease))

    def _first_term_seconds(self, lease: QueueLease) -> float:
        """Return the seconds of the first term of a lease that was never renewed.

        Return infinity once it was renewed: `leased_until` is known then.
        """
        if math.isfinite(lease.leased_until):
            return math.inf
        return lease.term_ms(self._in_flight.lease_renewer.lease_ms) / 1000


def _pool_and_number(hostname: str, queues: list[str], settings: Settings) -> tuple[str, int]:
    """Return the pool and the number of `email.1@host`.

    For other names, return the pools of the queues, and 1.
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
