"""Planned fail-overs while producers send: with `send_copies` no send that returned is lost."""

import json
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from millpond.broker.connection import connect
from millpond.broker.errors import BrokerAway, BrokerError
from millpond.broker.server import find_durability_risks
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.own_server import OwnServer
from tests.harness.replicated_server import Replicated, is_online

FAILOVERS = 3


@pytest.mark.slow
def test_no_send_that_returned_is_lost(replicated: Replicated, eventually: Eventually) -> None:
    """Through three planned fail-overs under load, every id that a send gave back is on the new master."""
    settings = Settings(broker_url=replicated.url, send_copies=1, broker_timeout_seconds=2)
    sent: list[str] = []
    refused: list[str] = []
    stop = threading.Event()

    def send() -> None:
        with Client(settings=settings) as client:
            while not stop.is_set():
                try:
                    sent.append(client.send(Square(n=1)).id)
                except BrokerError as error:
                    refused.append(str(error))
                stop.wait(0.01)

    producers = [threading.Thread(target=send) for _ in range(4)]
    for each in producers:
        each.start()
    try:
        servers = [replicated.master, replicated.replica]
        for _ in range(FAILOVERS):
            before = len(sent)
            eventually(lambda n=before: len(sent) > n + 50, 30)
            with redis.Redis(port=replicated.sentinel.port) as watching:
                eventually(lambda w=watching: _fail_over(w), 60, every_seconds=0.2)
            servers.reverse()
            eventually(lambda s=servers: is_online(s[0]), 60)
    finally:
        stop.set()
        for each in producers:
            each.join()
    there = {json.loads(raw)["headers"]["id"] for raw in servers[0].client.lrange("default", 0, -1)}
    assert [id for id in sent if id not in there] == [], f"of {len(sent)}"
    assert refused, "a fail-over is not seen by any send"
    assert all("\n" not in line for line in refused)


def _fail_over(sentinel: Any) -> bool:
    """Ask for a planned fail-over; False while the last one is not over."""
    try:
        sentinel.execute_command("SENTINEL", "FAILOVER", Replicated.name)
    except RedisError:
        return False
    return True


@pytest.mark.slow
def test_a_send_without_its_copies_says_so(replicated: Replicated) -> None:
    """With the replica gone a send fails in bounded time and says why; without the setting it returns."""
    settings = Settings(broker_url=replicated.master.url, send_copies=1, broker_timeout_seconds=1)
    with Client(settings=settings) as client:
        client.send(Square(n=1))
        replicated.replica.kill()
        began = monotonic()
        with pytest.raises(BrokerAway, match="0 of 1 replicas have it"):
            client.send(Square(n=2))
        assert monotonic() - began < 5
        assert "every send fails" in " ".join(find_durability_risks(client.store))
    with Client(settings=settings.model_copy(update={"send_copies": 0})) as client:
        client.send(Square(n=3))


def test_a_worker_says_that_sends_wait_for_no_replica(replicated: Replicated) -> None:
    """Where there are replicas and the setting is off, a worker's checks at its start name it."""
    url = replicated.master.url
    assert "MILLPOND_SEND_COPIES=1" in " ".join(find_durability_risks(connect(url)))
    assert find_durability_risks(connect(url, copies=1)) == []


@pytest.mark.slow
def test_a_read_only_broker_is_waited_for(
    replicated: Replicated, eventually: Eventually, tmp_path: Path
) -> None:
    """A worker process that starts on a replica, or whose broker becomes a replica, waits and goes on."""
    replica = replicated.replica
    replicated.sentinel.kill()  # it would make the replica follow its master again
    settings = settings_for(replica.url)
    with Client(settings=settings) as client, pytest.raises(BrokerAway, match="read-only replica"):
        client.send(Square(n=1))
    threading.Timer(4.0, lambda: replica.client.replicaof("NO", "ONE")).start()
    with workers(settings, tmp_path) as (worker,), Client(settings=settings) as client:
        assert not _is_replica(replica), "it was ready before its broker took writes"
        _runs_a_task(client, eventually)
        replica.client.replicaof("127.0.0.1", "1")
        replica.client.client_kill_filter(_type="normal")
        eventually(lambda: _is_replica(replica), 10)
        threading.Timer(3.0, lambda: replica.client.replicaof("NO", "ONE")).start()
        eventually(lambda: not _is_replica(replica), 30)
        _runs_a_task(client, eventually)
        assert worker.process.poll() is None
        assert "Traceback" not in worker.log
        assert "read-only replica" in worker.log


def _runs_a_task(client: Client, eventually: Eventually) -> None:
    """Send a task, as soon as the broker takes it, and see it done."""

    def sent() -> str | None:
        try:
            return client.batch().id
        except BrokerAway:
            return None

    batch = client.open_batch(eventually(sent, 20))
    batch.send(Square(n=1))
    batch.close()
    eventually(lambda: batch.summary().complete, 40)


def _is_replica(server: OwnServer) -> bool:
    return str(server.client.info("replication")["role"]) == "slave"
