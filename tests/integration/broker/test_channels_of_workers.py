"""A worker of Celery's own, or a script, that ends on Millpond's transport: nothing counted, nothing held."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from millpond.worker.local import valkey
from millpond.worker.local.valkey import Server
from tests.conftest import Eventually
from tests.harness.databases import fresh_database
from tests.harness.own_server import OwnServer, run_own_server

HERE = Path(__file__).parent
TRANSPORT = "millpond.broker.transport:Transport"
#: A worker of Celery's starts, even on a busy machine.
START_SECONDS = 30.0


class Fleet:
    """Workers of Celery's own with the application of channel_app.py, one at a time."""

    def __init__(self, url: str, folder: Path) -> None:
        self.client = Redis.from_url(url)
        self.notes, self.log = folder / "notes", folder / "log"
        self.notes.touch()
        self.env = {
            **os.environ,
            "CHANNEL_BROKER": url,
            "CHANNEL_TRANSPORT": TRANSPORT,
            "CHANNEL_NOTES": str(self.notes),
            "PYTHONPATH": str(HERE),
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def worker(self, pool: str) -> subprocess.Popen[bytes]:
        """Start a worker with one slot."""
        words = ["-A", "channel_app", "worker", "-c", "1", "-P", pool, "-l", "info"]
        without = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self.log.open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "celery", *words, *without], env=self.env, stdout=log, stderr=log
                )
            )
        return self._running[-1]

    def run(self, code: str) -> None:
        """Run a script that ends without closing anything."""
        subprocess.run([sys.executable, "-c", code], env=self.env, check=True, timeout=60)

    def noted(self) -> list[str]:
        """Return the notes of the tasks."""
        return self.notes.read_text().splitlines()

    def started(self) -> int:
        """Return the number of tasks that have started."""
        return sum(line.startswith("start") for line in self.noted())

    def counted(self) -> dict[str, int]:
        """Return the counters of the queue, and the messages that are ready, in flight and dead."""
        found = {
            name.decode(): int(n) for name, n in self.client.hgetall("millpond:{celery}:counters").items()
        }
        return {
            **found,
            "ready": self.client.llen("celery"),
            "in_flight": sum(self.client.hlen(key) for key in self.client.keys("*held:*")),
            "dead": self.client.xlen("millpond:{celery}:dead"),
            "deliveries": self.client.hlen("millpond:{celery}:deliveries"),
        }

    def end(self) -> None:
        """End the workers that still run."""
        for worker in self._running:
            worker.kill()
            worker.wait()
        self.client.close()


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> Iterator[Fleet]:
    """Return workers on a fresh database."""
    found = Fleet(fresh_database(server), tmp_path)
    yield found
    found.end()


SEND = "import channel_app as a; [a.{task}.delay(*args) for args in {calls!r}]"


def stop_gracefully(fleet: Fleet, eventually: Eventually, pool: str, stops: int) -> None:
    """Start a worker and stop it as soon as it runs one more task, so many times."""
    for _ in range(stops):
        before = fleet.started()
        worker = fleet.worker(pool)
        eventually(lambda before=before: fleet.started() > before, START_SECONDS)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert fleet.counted()["in_flight"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("pool", "stops"),
    [("prefork", 5), ("threads", 5), pytest.param("prefork", 20, marks=pytest.mark.evidence)],
)
def test_graceful_stops_count_no_delivery(
    fleet: Fleet, eventually: Eventually, pool: str, stops: int
) -> None:
    """A worker that fetched twenty ahead releases the tasks not started, and finishes the others."""
    fleet.run(SEND.format(task="nap", calls=[(n, 0.3) for n in range(stops + 7)]))
    stop_gracefully(fleet, eventually, pool, stops)
    counted = fleet.counted()
    assert (counted["dead"], counted["deliveries"], counted.get("redelivered", 0)) == (0, 0, 0)
    ended = Counter(line.partition(" ")[2] for line in fleet.noted() if line.startswith("end"))
    assert set(ended.values()) == {1}, "what had started was finished and acknowledged"
    assert counted["ready"] + len(ended) == stops + 7


@pytest.mark.slow
def test_tasks_running_in_a_killed_worker_count_a_delivery(fleet: Fleet, eventually: Eventually) -> None:
    """Messages of a killed worker come back when its lease expires, each with its delivery counted."""
    fleet.run(SEND.format(task="nap", calls=[(n, 30) for n in range(3)]))
    worker = fleet.worker("prefork")
    eventually(lambda: "start 0" in fleet.noted(), START_SECONDS)
    worker.kill()
    worker.wait()
    fleet.worker("prefork")
    eventually(lambda: fleet.noted().count("start 0") == 2, 2 * START_SECONDS)
    assert fleet.counted()["redelivered"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_a_task_reads_another_queue(fleet: Fleet, eventually: Eventually, waits: bool) -> None:
    """A task that reads another queue gets each message once; none stays in flight, no task runs twice."""
    fleet.run(
        "import channel_app as a\n"
        "with a.app.connection() as connection:\n"
        "    simple = connection.SimpleQueue('other')\n"
        "    [simple.put({'n': n}) for n in range(5)]\n"
        f"a.read.delay('other', 5, {waits})\n"
        "a.nap.delay(0, 0.1)"
    )
    fleet.worker("prefork")
    eventually(lambda: {"read 0 1 2 3 4", "end 0"} <= set(fleet.noted()), START_SECONDS)
    eventually(lambda: fleet.counted()["in_flight"] == 0)
    assert fleet.client.llen("other") == 0
    assert fleet.noted().count("start 0") == 1


@pytest.mark.parametrize(("last", "left"), [("m.ack()", 0), ("pass", 1)])
def test_a_script_that_ends_at_once(fleet: Fleet, last: str, left: int) -> None:
    """An acknowledgement was sent when `ack()` returned; an unacknowledged message is ready, uncounted."""
    fleet.run(
        "import channel_app as a\n"
        "connection = a.app.connection()\n"
        "simple = connection.SimpleQueue('celery')\n"
        "simple.put(1)\n"
        "m = simple.get(timeout=10)\n"
        f"{last}"
    )
    counted = fleet.counted()
    assert (counted["ready"], counted["in_flight"], counted["deliveries"], counted["dead"]) == (left, 0, 0, 0)


@pytest.mark.slow
def test_a_retry_while_the_server_restarts_is_sent(tmp_path: Path, eventually: Eventually) -> None:
    """`self.retry()` waits for the broker as Celery's publish policy says; nothing becomes a dead letter."""
    server = OwnServer(
        valkey.embedded_binary(), tmp_path / "server", ["appendonly yes", "appendfsync always"]
    )
    with run_own_server(server):
        fleet = Fleet(server.url, tmp_path)
        fleet.run(SEND.format(task="ask_again", calls=[(0,)]))
        fleet.worker("threads")
        eventually(lambda: "try 0 0" in fleet.noted(), START_SECONDS)
        server.kill()
        with fleet.notes.open("a") as notes:
            notes.write("go\n")
        eventually(lambda: "asks again" in fleet.noted())
        server.start()
        eventually(lambda: "try 0 1" in fleet.noted(), START_SECONDS)
        assert fleet.counted()["dead"] == 0
        fleet.end()
