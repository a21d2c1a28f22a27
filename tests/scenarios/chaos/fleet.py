"""The workers of a run: a pool of each executor, under a supervisor that can be killed and started again."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from millpond.tasks.pools import Pool, PoolsTable, Queue
from millpond.tasks.settings import Settings, child_environment
from tests.scenarios.chaos.kinds import QUEUES
from tests.scenarios.chaos.ledger import URL_VARIABLE

ROOT = Path(__file__).parents[3]
LEASE_SECONDS = 3.0

POOLS = {
    "chaosthreads": Pool(queues=QUEUES, executor="threads", processes=2, concurrency=4, prefetch=8),
    "chaosprefork": Pool(queues=QUEUES, executor="prefork", processes=2, concurrency=2, prefetch=4),
}


#: Bounded queues, and many deliveries before a dead letter.
QUEUE = Queue(bound=500, max_deliveries=50, lease_seconds=LEASE_SECONDS)

#: The values of `--transport` (`__main__.py`), and the Celery application of three of them.
APPLICATION = "tests.scenarios.chaos.stock"
WAYS = ("millpond", "transport", "app", "stock")


def settings_for(
    broker_url: str, *, lease_seconds: float = LEASE_SECONDS, app: str | None = None
) -> Settings:
    """Return the settings of a run: short leases, bounded queues, many deliveries before a dead letter."""
    queue = QUEUE.model_copy(update={"lease_seconds": lease_seconds})
    return Settings(
        broker_url=broker_url,
        broker_timeout_seconds=5,
        app=app,
        drain_seconds=20,
        kinds=() if app else ("tests.scenarios.chaos.kinds",),  # an application has a task of that name
        table=PoolsTable(pools=POOLS, queues=dict.fromkeys(QUEUES, queue)),
    )


def environment_for(
    broker_url: str, ledger_url: str, *, lease_seconds: float = LEASE_SECONDS, way: str = "millpond"
) -> dict[str, str]:
    """Return the environment of the processes of a run, with its broker, its ledger and this checkout."""
    app = APPLICATION if way == "app" else None
    env = child_environment(settings_for(broker_url, lease_seconds=lease_seconds, app=app))
    if way in ("transport", "app"):
        broker_url = broker_url.replace("redis://", "millpond://", 1)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**env, URL_VARIABLE: ledger_url, "CHAOS_BROKER": broker_url, "PYTHONPATH": path}


class Fleet:
    """The supervisor and its worker processes. It is started when this is created."""

    def __init__(self, way: str, env: dict[str, str], log: Path) -> None:
        own = ["-P", "-m", "millpond.worker.supervise.supervisor", *POOLS]
        self._command = [
            sys.executable,
            *(own if way in ("millpond", "app") else ["-m", APPLICATION]),
        ]
        self._env, self._log = env, log
        self.start()

    def start(self) -> None:
        """Start the supervisor."""
        with self._log.open("ab") as log:
            self.supervisor = subprocess.Popen(
                self._command, env=self._env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def workers(self, *, steady_seconds: float = 0.0) -> list[psutil.Process]:
        """Return the main processes of the workers that are older than `steady_seconds`."""
        now = time.time()
        found = [
            child for child in _children(self.supervisor.pid) if now - child.create_time() >= steady_seconds
        ]
        return [child for child in found if _lives(child)]

    def children(self) -> list[psutil.Process]:
        """Return the prefork children that run tasks."""
        return [child for worker in self.workers() for child in _children(worker.pid)]

    def family(self) -> list[psutil.Process]:
        """Return every process of the fleet, the supervisor first."""
        return _children(self.supervisor.pid, recursive=True, itself=True)

    def kill(self) -> None:
        """Kill the supervisor; the kernel kills the workers with it."""
        self.supervisor.send_signal(signal.SIGKILL)
        self.supervisor.wait()

    def stop(self) -> int:
        """Terminate the supervisor, and return its exit code. Processes of its family that remain are killed.

        May be called again.
        """
        family = self.family()
        self.supervisor.terminate()
        try:
            code = int(self.supervisor.wait(60))
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return code


def _lives(process: psutil.Process) -> bool:
    """True if a process still runs. It may end, and be reaped, at any time."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _children(of: int, *, recursive: bool = False, itself: bool = False) -> list[psutil.Process]:
    try:
        parent = psutil.Process(of)
        return [*([parent] if itself else []), *parent.children(recursive=recursive)]
    except psutil.NoSuchProcess:
        return []
