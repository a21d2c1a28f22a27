"""Check that no worker counts a task as running when all tasks have ended.

It is checked at the end of each test with a worker, and of a chaos run.
"""

from collections.abc import Set
from time import monotonic, sleep

import psutil

from millpond.broker.connection import Store, connect
from millpond.broker.errors import BrokerError
from millpond.broker.inspect.depth import read_depths
from millpond.broker.stats.heartbeats import Heartbeat, read_processes
from millpond.tasks.settings import Settings

#: How long a process may take to report it on a busy machine. A heartbeat comes once a second on an idle one.
REPORTED_SECONDS = 60.0

#: Words of the log line of a worker that ends and counts tasks as running although all have ended.
COUNTED_AT_THE_END = "count as running although all have ended"


def assert_at_rest(settings: Settings, *, pids: Set[int] | None = None) -> None:
    """Fail if a living process reports running tasks although the queues of these settings are empty.

    `pids` limits the check to these processes; None: to all that send heartbeats. Nothing is checked if the
    broker is unreachable, or tasks are left on the queues.
    """
    try:
        store = connect(settings.broker_url or "", prefix=settings.key_prefix, timeout_seconds=5)
        try:
            still_counting = processes_that_count(store, list(settings.table.queues), pids=pids)
        finally:
            store.close()
    except BrokerError:
        return
    assert not still_counting, f"the queues are empty, and these processes count tasks: {still_counting}"


def processes_that_count(store: Store, queues: list[str], *, pids: Set[int] | None = None) -> list[Heartbeat]:
    """Return the processes that still count tasks after `REPORTED_SECONDS`.

    [] if there are none, or tasks are left on the queues.
    """
    deadline = monotonic() + REPORTED_SECONDS
    while True:
        found = [
            each
            for each in read_processes(store)
            if (each.busy or each.in_flight) and (pids is None or each.pid in pids) and _is_running(each.pid)
        ]
        if not found or any(depth.ready or depth.in_flight for depth in read_depths(store, queues)):
            return []
        if monotonic() > deadline:
            return found
        sleep(0.1)


def _is_running(pid: int) -> bool:
    """True unless the process has ended or is stopped."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
