"""The thread that sends the heartbeat of this process (broker/stats/heartbeats.py).

It looks once a second, and sends once a second while tasks run. An idle process sends every third time, so
that a hundred of them cost the broker little. It also writes samples of the history when they are due. An
unreachable broker is no fault: the numbers go with the next report.
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

from millpond.broker.celery.child_watch import children_started
from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.errors import BrokerError
from millpond.broker.stats import days, heartbeats, history, probing
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.tasks.pools import Table
from millpond.tasks.process.metrics_file import MetricsFile
from millpond.tasks.settings import Settings
from millpond.worker.report.host_cpu import CpuQuota, HostCpu, LoopCpu
from millpond.worker.report.metering import Metering, count_busy
from millpond.worker.report.slot_times import SlotTimes

logger = logging.getLogger(__name__)

#: The time between two heartbeats.
HEARTBEAT_SECONDS = 1.0

#: The time between two heartbeats of a process in which nothing happens.
IDLE_SECONDS = 3.0

#: Fields of the totals that grow in a process in which nothing happens.
_IDLE_FIELDS = frozenset(("slot_us", "turns"))


class HeartbeatReporter:
    """Sends the heartbeats of one worker process, from when it takes messages to its end."""

    def __init__(
        self,
        table: Table,
        in_flight: InFlightMessages,
        *,
        samples_slots: bool = True,
        probe_share: float = 0.0,
    ) -> None:
        self._table = table
        self._in_flight = in_flight
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unsent: Counter[str] = Counter()
        self._all: Counter[str] = Counter()
        self._file: MetricsFile | None = None
        self._turns = 0
        self._pool: Any = None
        self._children = 0
        self._answer_times: deque[float] = deque(maxlen=5)
        self._since = 0.0
        self._about: dict[str, Any] = {}
        self._metering = Metering()
        self._host_cpu, self._quota, self._loop_cpu = HostCpu(), CpuQuota(), LoopCpu()
        self._samples_slots = samples_slots
        self._probe_share = probe_share
        #: The process that took the last samples looks for a pool to probe until others take theirs.
        self._looks_until = 0.0
        #: When the last heartbeat was sent, and what it said.
        self._sent_at = 0.0
        self._sent: tuple[object, ...] = ()
        self._prober: threading.Thread | None = None
        self._slot_times: SlotTimes | None = None

    def on_ready(self, sender: Any, **_: Any) -> None:
        """Start the heartbeats of a worker. `sender` is its consumer."""
        if self._thread is not None:
            return
        queues = tuple(queue.name for queue in sender.task_consumer.queues)
        self._pool = sender.pool
        pool = type(sender.pool).__module__.rpartition(".")[2]
        self._metering = sender.app.metering
        self._since = time.monotonic()
        self._about = {
            "name": sender.hostname,
            "pool": pool_of(sender.hostname, queues, self._table),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "executor": {"thread": "threads"}.get(pool, pool),
            "queues": queues,
            "cores": _count_cores(),
        }
        self._file = MetricsFile()
        self._slot_times = SlotTimes(os.getpid(), samples=self._samples_slots)
        self._thread = threading.Thread(target=self._send_heartbeats, name="millpond-heartbeat", daemon=True)
        self._thread.start()

    def on_stopped(self, **_: Any) -> None:
        """Send the last heartbeat, then withdraw it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _send_heartbeats(self) -> None:
        """Send heartbeats until the worker stops, then withdraw the last."""
        self._send_heartbeat()  # a ready process is shown at once, not after the first interval
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._send_heartbeat()
        self._sent_at = 0.0
        self._send_heartbeat()
        if self._file is not None:
            self._file.close()
        try:
            heartbeats.withdraw_heartbeat(self._store, self._about["name"])
        except BrokerError as error:
            logger.debug("%s", error)

    def _send_heartbeat(self) -> None:
        """Send a heartbeat with the counts since the last one. Write samples and probe if that is due."""
        slots, turns = self._in_flight.slots, self._in_flight.fetch_calls
        added = self._metering.take_counts(slots=slots)
        added["turns"] += turns - self._turns
        self._turns = turns
        children = children_started(self._pool)
        added["children"] += children - self._children
        self._children = children
        self._unsent.update(added)
        if self._slot_times is not None:
            self._slot_times.add_counts(added, self._metering.errors)
        state = self._make_heartbeat(slots)
        self._write_metrics(state, added)
        began = time.monotonic()
        if self._is_quiet(state, added, began):
            return
        try:
            takes_samples = heartbeats.send_heartbeat(self._store, state, self._unsent)
            self._answer_times.append(time.monotonic() - began)
            self._sent_at, self._sent = began, _urgent_facts(state)
            self._unsent.clear()  # they are counted now, even if the samples fail
            if self._slot_times is not None:
                self._slot_times.send_to_window(self._store, state.pool)
            if takes_samples:
                history.write_samples(self._store)
                days.fold_if_due(self._store, heartbeats.read_pools(self._store))
                self._looks_until = time.monotonic() + heartbeats.SAMPLE_MS / 1000
            if time.monotonic() < self._looks_until:
                self._start_probe()
        except BrokerError as error:
            logger.debug("%s", error)
        except Exception:  # for example of data of another version: the heartbeats must go on
            logger.exception("the samples of the history could not be written")

    def _is_quiet(self, state: Heartbeat, added: Counter[str], now: float) -> bool:
        """True if nothing happens here, and a heartbeat was sent a moment ago.

        Not in the process that took the last samples, because the next would be late.
        """
        if now <= self._looks_until + 2 * HEARTBEAT_SECONDS or now - self._sent_at > IDLE_SECONDS - 0.5:
            return False
        happens = state.busy or any(added[name] for name in added if name not in _IDLE_FIELDS)
        return not happens and self._sent == _urgent_facts(state)

    def _start_probe(self) -> None:
        """Probe a pool that is behind, in a thread of its own: it takes longer than a heartbeat may."""
        if self._probe_share and (self._prober is None or not self._prober.is_alive()):
            self._prober = threading.Thread(
                target=probing.probe_where_due,
                args=(self._store,),
                kwargs={"share": self._probe_share},
                name="millpond-probe",
                daemon=True,
            )
            self._prober.start()

    def _write_metrics(self, state: Heartbeat, added: Counter[str]) -> None:
        """Write the metrics file for the supervisor."""
        self._all.update(added)
        keeper = self._in_flight.lease_renewer
        leases = {"lease_renewals": keeper.renewals, "leases_lost": keeper.losses}
        if self._file is not None:
            self._file.write({**asdict(state), **leases, "totals": self._all})

    def _make_heartbeat(self, slots: int) -> Heartbeat:
        """Return the present state of this process."""
        return Heartbeat(
            **self._about,
            slots=slots,
            busy=min(count_busy(), slots),
            in_flight=self._in_flight.count,
            prefetch=self._in_flight.prefetch,
            draining=self._in_flight.starts_nothing,
            host_busy=self._host_cpu.sample_busy_share(),
            throttled=self._quota.sample_throttled_share(),
            loop_busy=self._loop_cpu.sample_busy_share(),
            broker_seconds=round(min(self._answer_times, default=0.0), 4),
            uptime_seconds=round(time.monotonic() - self._since, 1),
        )

    @property
    def _store(self) -> Store:
        store: Store = self._in_flight.lease_renewer.store
        return store


def _urgent_facts(state: Heartbeat) -> tuple[object, ...]:
    """Return the parts of a heartbeat that a reader must learn of at once."""
    return state.slots, state.busy, state.in_flight, state.prefetch, state.draining


def _count_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def pool_of(hostname: str, queues: tuple[str, ...], table: Table) -> str:
    """Return the pool of a worker: `email` for `email.1@host`, or the pool with exactly these queues."""
    name = hostname.partition("@")[0].rpartition(".")[0]
    if name in table.pools:
        return name
    same = (pool for pool, entry in table.pools.items() if set(entry.queues) == set(queues))
    return next(same, "other")


def install(app: Celery, settings: Settings, in_flight: InFlightMessages) -> None:
    """Send the heartbeats of every worker of this application."""
    app.reporter = reporter = HeartbeatReporter(
        settings.table, in_flight, samples_slots=settings.sample_slots, probe_share=settings.probe_share
    )  # signals keep weak references
    signals.worker_ready.connect(reporter.on_ready)
    signals.worker_shutdown.connect(reporter.on_stopped)
