"""Send the heartbeat of this process, from a thread of its own (broker/stats/heartbeats.py).

A heartbeat is due once a second while tasks run, and every third second in an idle process, so that a hundred
idle ones cost the broker little. The thread also writes samples of the history when they are due. While the
broker is unreachable, the counts are kept for the next heartbeat.
"""

import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import asdict
from typing import Any

from celery import Celery, signals

from millpond.broker.celery.child_watch import count_started_children
from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.errors import BrokerError
from millpond.broker.stats import days, heartbeats, history, probing
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings
from millpond.worker.report import host_cpu
from millpond.worker.report.host_cpu import SampledShare
from millpond.worker.report.metering import Metering, count_running_tasks
from millpond.worker.report.metrics_file import MetricsFile
from millpond.worker.report.slot_times import SlotTimes

logger = logging.getLogger(__name__)

#: The time between two heartbeats.
HEARTBEAT_SECONDS = 1.0

#: The time between two heartbeats of an idle process.
IDLE_SECONDS = 3.0

#: Fields of the totals that grow in an idle process too.
_IDLE_FIELDS = frozenset(("slot_us", "turns"))


class HeartbeatReporter:
    """Sends the heartbeats of one worker process, from when it takes messages to its end."""

    def __init__(self, settings: Settings, in_flight: InFlightMessages) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: The counts that no heartbeat has sent yet, and all counts since the start.
        self._unsent: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        #: Set before the thread starts, as the three below that `on_ready` sets.
        self._metrics_file: MetricsFile
        self._slot_times: SlotTimes
        #: The fetch calls, and the children that were started, until the last heartbeat.
        self._fetch_calls = 0
        self._children = 0
        self._pool: Any = None
        #: The seconds that the broker took for the last heartbeats.
        self._reply_seconds: deque[float] = deque(maxlen=5)
        self._started_at = 0.0
        #: The fields of a heartbeat that never change.
        self._identity: dict[str, Any] = {}
        self._metering = Metering()
        self._host_busy = SampledShare(host_cpu.read_host_ticks)
        self._throttled = SampledShare(host_cpu.read_quota_periods)
        self._loop_busy = SampledShare(host_cpu.read_loop_seconds)
        #: The process that wrote the last samples of the history probes pools until the next samples are due.
        self._probes_until = 0.0
        #: The time of the last heartbeat, and its urgent figures.
        self._sent_at = 0.0
        self._sent_figures: tuple[object, ...] = ()
        self._probe_thread: threading.Thread | None = None

    def on_ready(self, sender: Any, **_: Any) -> None:
        """Start the heartbeats of a worker. `sender` is its consumer."""
        if self._thread is not None:
            return
        queues = tuple(queue.name for queue in sender.task_consumer.queues)
        self._pool = sender.pool
        pool = type(sender.pool).__module__.rpartition(".")[2]
        self._metering = sender.app.metering
        self._started_at = time.monotonic()
        self._identity = {
            "name": sender.hostname,
            "pool": pool_of(sender.hostname, queues, self._settings.table),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "executor": {"thread": "threads"}.get(pool, pool),
            "queues": queues,
            "cores": _count_cores(),
        }
        self._metrics_file = MetricsFile()
        self._slot_times = SlotTimes(samples=self._settings.sample_slots)
        self._thread = threading.Thread(target=self._send_heartbeats, name="millpond-heartbeat", daemon=True)
        self._thread.start()

    def on_stopped(self, **_: Any) -> None:
        """Stop the thread. It sends the last counts, then withdraws the heartbeat."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _send_heartbeats(self) -> None:
        """Send heartbeats until the worker stops, then one with the last counts, and withdraw it."""
        self._send_heartbeat()  # so that a ready process is shown at once
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._send_heartbeat()
        self._sent_at = 0.0  # so that the last one is sent also if the process is idle
        self._send_heartbeat()
        self._metrics_file.remove()
        try:
            heartbeats.withdraw_heartbeat(self._store, self._identity["name"])
        except BrokerError as error:
            logger.debug("%s", error)

    def _send_heartbeat(self) -> None:
        """Take the counts since the last call, write the metrics file, and send a heartbeat if one is due.

        If this process gets the turn, it also writes the samples of the history, and probes a pool.
        """
        counts = self._take_counts()
        heartbeat = self._make_heartbeat()
        self._write_metrics(heartbeat, counts)
        began = time.monotonic()
        if not self._is_due(heartbeat, counts, began):
            return
        try:
            has_sampling_turn = heartbeats.send_heartbeat(self._store, heartbeat, self._unsent)
            self._reply_seconds.append(time.monotonic() - began)
            self._sent_at, self._sent_figures = began, _urgent_figures(heartbeat)
            self._unsent.clear()  # the broker has counted them, even if the samples below fail
            self._slot_times.send_to_window(self._store, heartbeat.pool)
            if has_sampling_turn:
                history.write_samples(self._store)
                days.fold_if_due(self._store, heartbeats.read_pools(self._store))
                self._probes_until = time.monotonic() + heartbeats.SAMPLE_MS / 1000
            if time.monotonic() < self._probes_until and not self._stop.is_set():  # the end would cut it off
                self._start_probe()
        except BrokerError as error:
            logger.debug("%s", error)
        except Exception:  # the heartbeats must go on, also if Redis has data of another version
            logger.exception("the samples of the history could not be written")

    def _take_counts(self) -> Counter[str]:
        """Return the counts since the last call, and add them to those of the next heartbeat and window."""
        counts = self._metering.take_counts(slots=self._in_flight.slots)
        fetch_calls, children = self._in_flight.fetch_calls, count_started_children(self._pool)
        counts["turns"] += fetch_calls - self._fetch_calls
        counts["children"] += children - self._children
        self._fetch_calls, self._children = fetch_calls, children
        self._unsent.update(counts)
        self._slot_times.add_counts(counts, self._metering.errors)
        return counts

    def _is_due(self, heartbeat: Heartbeat, counts: Counter[str], now: float) -> bool:
        """True if a heartbeat must be sent now: tasks run or end, an urgent figure changed, or time is up.

        Until the next samples of the history are due (`_probes_until`), it is always due in the process that
        wrote the last ones: a sample is written with a heartbeat, and would be late without one.
        """
        if now <= self._probes_until + 2 * HEARTBEAT_SECONDS or now - self._sent_at > IDLE_SECONDS - 0.5:
            return True
        is_idle = not heartbeat.busy and not any(counts[name] for name in counts.keys() - _IDLE_FIELDS)
        return not is_idle or self._sent_figures != _urgent_figures(heartbeat)

    def _start_probe(self) -> None:
        """Start a thread that probes a pool that is behind, unless the thread runs or probing is off.

        A probe takes many seconds.
        """
        share = self._settings.probe_share
        if share and (self._probe_thread is None or not self._probe_thread.is_alive()):
            self._probe_thread = threading.Thread(
                target=probing.probe_where_due,
                args=(self._store,),
                kwargs={"share": share},
                name="millpond-probe",
                daemon=True,
            )
            self._probe_thread.start()

    def _write_metrics(self, heartbeat: Heartbeat, counts: Counter[str]) -> None:
        """Add the counts to the totals, and write the metrics file, which the supervisor serves."""
        self._totals.update(counts)
        renewer = self._in_flight.lease_renewer
        leases = {"lease_renewals": renewer.renewals, "leases_lost": renewer.losses}
        self._metrics_file.write({**asdict(heartbeat), **leases, "totals": self._totals})

    def _make_heartbeat(self) -> Heartbeat:
        """Return a heartbeat with the present state of this process."""
        slots = self._in_flight.slots
        return Heartbeat(
            **self._identity,
            slots=slots,
            busy=min(count_running_tasks(), slots),
            in_flight=self._in_flight.count,
            prefetch=self._in_flight.prefetch,
            draining=self._in_flight.starts_nothing,
            host_busy=self._host_busy.sample(),
            throttled=self._throttled.sample(),
            loop_busy=self._loop_busy.sample(),
            broker_seconds=round(min(self._reply_seconds, default=0.0), 4),
            uptime_seconds=round(time.monotonic() - self._started_at, 1),
        )

    @property
    def _store(self) -> Store:
        store: Store = self._in_flight.lease_renewer.store
        return store


def _urgent_figures(heartbeat: Heartbeat) -> tuple[object, ...]:
    """Return the figures of a heartbeat whose change is sent at once."""
    return heartbeat.slots, heartbeat.busy, heartbeat.in_flight, heartbeat.prefetch, heartbeat.draining


def _count_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def pool_of(hostname: str, queues: tuple[str, ...], table: PoolsTable) -> str:
    """Return the pool of a worker: `email` for `email.1@host`, else the pool with exactly these queues.

    Return `other` if there is none.
    """
    name = hostname.partition("@")[0].rpartition(".")[0]
    if name in table.pools:
        return name
    candidates = (pool for pool, entry in table.pools.items() if set(entry.queues) == set(queues))
    return next(candidates, "other")


def install(app: Celery, settings: Settings, in_flight: InFlightMessages) -> None:
    """Send the heartbeats of every worker of this application."""
    app.reporter = reporter = HeartbeatReporter(settings, in_flight)  # signals keep weak references
    signals.worker_ready.connect(reporter.on_ready)
    signals.worker_shutdown.connect(reporter.on_stopped)
