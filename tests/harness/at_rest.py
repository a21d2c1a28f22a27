"""Assert that ended tasks are over: with none ready or in flight, no worker counts one as running.

Asked at the end of every test of a worker, and of chaos.
"""

from collections.abc import Set
from time import monotonic, sleep

import psutil

from millpond.broker.connection import Store, connect
from millpond.broker.errors import BrokerError
from millpond.broker.inspect.depth import read_depths
from millpond.broker.stats.heartbeats import Heartbeat, read_processes
from millpond.tasks.settings import Settings

#: How long a process may take to report it; a heartbeat comes once a second, on an idle machine.
REPORTED_SECONDS = 15.0

#: The worker's own words, when a count is left after all its tasks have ended.
COUNTED_AT_THE_END = "count as running although all have ended"


def assert_at_rest(settings: Settings, *, pids: Set[int] | None = None) -> None:
    """Fail if a living process reports tasks although there is none on the queues of these settings.

    `pids` are the processes that are asked; None: all that send heartbeats. Nothing is asked where the broker
    is away, or tasks are left.
    """
    try:
        store = connect(settings.broker_url or "", prefix=settings.key_prefix, timeout_seconds=5)
        try:
            still_counting = counting(store, list(settings.table.queues), pids=pids)
        finally:
            store.close()
    except BrokerError:
        return
    assert not still_counting, f"nothing runs, and they count: {still_counting}"


def counting(store: Store, queues: list[str], *, pids: Set[int] | None = None) -> list[Heartbeat]:
    """Return the processes that go on counting tasks as running while the queues are empty."""
    deadline = monotonic() + REPORTED_SECONDS
    while True:
        found = [
            each
            for each in read_processes(store)
            if (each.busy or each.in_flight) and (pids is None or each.pid in pids) and _runs(each.pid)
        ]
        if not found or any(depth.ready or depth.in_flight for depth in read_depths(store, queues)):
            return []
        if monotonic() > deadline:
            return found
        sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
