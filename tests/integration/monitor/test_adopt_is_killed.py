"""`millpond adopt` and all around it are killed with -9 in the middle: every message is there, once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty

import pytest
from celery import Celery
from kombu import Connection

import millpond.broker.transport  # noqa: F401
from millpond.broker.connection import Store, connect
from millpond.broker.inspect.depth import read_depth
from tests.scenarios.chaos.server import Broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MESSAGES, TAKEN, OURS = 1_200, 900, 100

#: Takes so many messages, and is killed with all of them unacknowledged.
CONSUMER = """
import os, signal, sys
import millpond.broker.transport
from kombu import Connection
with Connection(sys.argv[1], transport_options={"lease_seconds": 1}) as connection:
    channel, taken = connection.channel(), []
    while len(taken) < int(sys.argv[2]):
        message = channel.basic_get("moved")
        if message is not None:
            taken.append(message)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a server that writes to disk before it answers."""
    broker = Broker(tmp_path / "broker")
    yield broker
    broker.kill()


def consume(url: str, number: int) -> None:
    """Run a consumer until it has taken so many messages, and kill it."""
    command = [sys.executable, "-c", CONSUMER, url, str(number)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def adopt(broker: Broker) -> "subprocess.Popen[bytes]":
    """Start the command."""
    command = [sys.executable, "-m", "millpond", "adopt", "--all", "moved"]
    env = {**os.environ, "MILLPOND_BROKER_URL": broker.url, "MILLPOND_KEY_PREFIX": ""}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def left(store: Store) -> int:
    """Return the number of messages that stock workers still have."""
    return int(store.client.hlen("unacked"))


def in_the_middle(broker: Broker, store: Store, harm: Callable[["subprocess.Popen[bytes]"], None]) -> None:
    """Start the command, do harm once it has adopted some messages, and wait until it has ended."""
    before, mover = left(store), adopt(broker)
    while left(store) == before:
        assert mover.poll() is None
    harm(mover)
    mover.wait(60)


def test_nothing_is_lost_and_nothing_doubled(broker: Broker) -> None:
    """Messages of any priority, ETA and state survive a kill of the mover, our worker and the server."""
    app = Celery(broker=broker.url, set_as_current=False)
    due = datetime.now(UTC) + timedelta(seconds=1)
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for n in range(MESSAGES):
            app.send_task(
                "moved.task",
                task_id=str(n),
                queue="moved",
                priority=n % 10,
                eta=due if n % 7 == 0 else None,
                producer=producer,
            )
    consume(broker.url, TAKEN)
    store = connect(broker.url)
    assert left(store) == TAKEN

    def kill_mover(mover: "subprocess.Popen[bytes]") -> None:
        mover.kill()

    def kill_server(_mover: "subprocess.Popen[bytes]") -> None:
        broker.kill()
        broker.start()

    in_the_middle(broker, store, kill_mover)
    assert left(store) < TAKEN
    consume(broker.url.replace("redis://", "millpond://"), OURS)
    in_the_middle(broker, store, kill_server)
    assert adopt(broker).wait(60) == 0
    assert left(store) == 0

    found: Counter[str] = Counter()
    with Connection(broker.url.replace("redis://", "millpond://")) as connection:
        queue = connection.SimpleQueue("moved")
        while len(found) < MESSAGES:
            try:
                message = queue.get(timeout=20)
            except Empty:
                break
            found[message.headers["id"]] += 1
            message.ack()
    assert found == dict.fromkeys(map(str, range(MESSAGES)), 1)
    seen = read_depth(store, "moved")
    assert (seen.ready, seen.delayed, seen.in_flight, seen.dead) == (0, 0, 0, 0)
    store.close()
