"""The server or the network fails: producers get an error in time, workers keep their messages."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.connection import Store, connect
from millpond.broker.errors import BrokerAway, BrokerError
from millpond.broker.inspect import dead_letters, depth
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.noted import read_names, send_acts
from tests.harness.one_worker import OneWorker, settings_for, workers
from tests.harness.own_server import OwnServer, run_own_server
from tests.harness.tcp_proxy import Proxy, proxy

LEASE_SECONDS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    lines = ["appendonly yes", "appendfsync always", "enable-debug-command local"]
    with run_own_server(OwnServer(embedded_binary(), tmp_path_factory.mktemp("server"), lines)) as made:
        yield made


@pytest.fixture(scope="module")
def network(server: OwnServer) -> Iterator[Proxy]:
    with proxy(server.port) as made:
        yield made


@pytest.fixture(scope="module")
def worker(network: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    settings = settings_for(network.url, queue={"lease_seconds": LEASE_SECONDS}, broker_timeout_seconds=2)
    with workers(settings, tmp_path_factory.mktemp("failing")) as (running_,):
        yield running_


@pytest.fixture(scope="module")
def direct(server: OwnServer, worker: OneWorker) -> Iterator[Store]:
    """Open a store that does not pass the network that fails; the worker runs."""
    store = connect(server.url)
    yield store
    store.close()


def once(file: Path, *wanted: str) -> bool:
    """True if each ran to its end, and none was started twice."""
    assert not [name for name, times in Counter(read_names(file)).items() if times > 1]
    return set(wanted) <= set(read_names(file, "end"))


def test_connections_are_cut(network: Proxy, direct: Store, file: Path, eventually: Eventually) -> None:
    """After a cut the worker is back within two seconds; tasks of that time are settled, and ran once."""
    send_acts(direct, file, "held", seconds=1.5)
    eventually(lambda: read_names(file) == ["held"])
    network.cut()
    send_acts(direct, file, "next")
    began = monotonic()
    eventually(lambda: once(file, "held", "next"))
    assert monotonic() - began < 20
    eventually(lambda: depth.read_depth(direct, "default").in_flight == 0)


def test_the_network_is_away_for_longer_than_a_lease(
    network: Proxy, direct: Store, file: Path, eventually: Eventually
) -> None:
    """When the network swallows all bytes, producers get a clear error in time, and the worker comes back."""
    send_acts(direct, file, "held", seconds=1)
    eventually(lambda: read_names(file) == ["held"])
    network.swallow()
    began = monotonic()
    with pytest.raises(BrokerAway, match="cannot be reached"):
        send_acts(connect(network.url, timeout_seconds=1), file, "unsent")
    assert monotonic() - began < 12
    eventually(lambda: monotonic() - began > LEASE_SECONDS + 2, 30)
    network.heal()
    send_acts(direct, file, "next")
    eventually(lambda: once(file, "held", "next"), 30)
    eventually(lambda: depth.read_depth(direct, "default").in_flight == 0)


@pytest.mark.slow
def test_the_server_is_killed_and_started_again(
    server: OwnServer, direct: Store, file: Path, eventually: Eventually
) -> None:
    """Tasks accepted before a power cut of the server run after it, once; the worker was not restarted."""
    send_acts(direct, file, *(f"held-{n}" for n in range(4)), seconds=2)
    send_acts(direct, file, *(f"waiting-{n}" for n in range(20)))
    eventually(lambda: len(read_names(file)) == 4)
    server.kill()
    with pytest.raises(BrokerAway):
        send_acts(direct, file, "unsent")
    eventually(lambda: len(read_names(file, "end")) >= 4)
    server.start()
    wanted = [f"held-{n}" for n in range(4)] + [f"waiting-{n}" for n in range(20)]
    eventually(lambda: once(file, *wanted), 40)
    eventually(lambda: depth.read_depth(direct, "default").in_flight == 0)


def test_the_server_is_full(
    server: OwnServer, network: Proxy, direct: Store, file: Path, eventually: Eventually
) -> None:
    """A full server refuses new tasks, in words; the worker still settles, keeps its lease and drains."""
    send_acts(direct, file, "long", seconds=LEASE_SECONDS + 3)
    send_acts(direct, file, *(f"waiting-{n}" for n in range(60)), seconds=0.1)
    client = server.client
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerError, match="out of memory"):
            send_acts(direct, file, "unsent")
        network.cut()  # a worker that comes back to a full server must be let in
        eventually(lambda: once(file, "long", *(f"waiting-{n}" for n in range(60))), 40)
        eventually(lambda: depth.read_depth(direct, "default").in_flight == 0)
    finally:
        client.config_set("maxmemory", 0)
    send_acts(direct, file, "afterwards")
    eventually(lambda: once(file, "afterwards"))


def test_the_server_becomes_a_replica(
    server: OwnServer, direct: Store, file: Path, eventually: Eventually
) -> None:
    """A read-only replica refuses new tasks, in words; when it is a master again the worker goes on."""
    client = server.client
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(BrokerError, match="read-only replica"):
            send_acts(direct, file, "unsent")
    finally:
        client.replicaof("NO", "ONE")
    send_acts(direct, file, "afterwards")
    eventually(lambda: once(file, "afterwards"), 30)


def test_the_scripts_are_flushed(
    server: OwnServer, direct: Store, file: Path, eventually: Eventually
) -> None:
    """A server that lost its scripts gets them again, from producers and workers, and nothing runs twice."""
    client, wanted = server.client, [f"task-{n}" for n in range(120)]
    for n in range(0, 120, 20):
        client.script_flush()
        send_acts(direct, file, *wanted[n : n + 20])
        client.script_flush()
    eventually(lambda: once(file, *wanted), 20)


@pytest.mark.slow
def test_a_slow_command_is_in_the_way(
    server: OwnServer, direct: Store, file: Path, eventually: Eventually
) -> None:
    """While the server is busy producers get an error in time; the worker keeps its messages and goes on."""
    send_acts(direct, file, "held", seconds=1)
    eventually(lambda: read_names(file) == ["held"])
    sleeper = server.client
    sleeper.connection_pool.connection_kwargs["socket_timeout"] = 30
    sleeping = threading.Thread(target=sleeper.execute_command, args=("DEBUG", "SLEEP", LEASE_SECONDS + 3))
    sleeping.start()
    eventually(lambda: _is_busy(server.url))
    began = monotonic()
    with pytest.raises(BrokerAway):
        send_acts(connect(server.url, timeout_seconds=1), file, "unsent")
    assert monotonic() - began < 12
    sleeping.join()
    send_acts(direct, file, "next")
    eventually(lambda: once(file, "held", "next"), 30)


def _is_busy(url: str) -> bool:
    try:
        connect(url, timeout_seconds=0.2).client.ping()
    except RedisTimeoutError:
        return True
    return False


def test_a_script_that_does_not_end_is_in_the_way(
    worker: OneWorker, server: OwnServer, direct: Store, file: Path, eventually: Eventually
) -> None:
    """While the server answers BUSY to everything the worker lives; afterwards it goes on."""
    direct.client.config_set("lua-time-limit", 50)

    def run_for_ever() -> None:
        with suppress(ResponseError):
            connect(server.url, timeout_seconds=60).client.eval("while true do end", 0)

    script = threading.Thread(target=run_for_ever)
    began = monotonic()
    script.start()
    try:
        eventually(lambda: monotonic() - began > 3, every_seconds=0.1)
        assert worker.process.poll() is None, worker.log[-3000:]
    finally:
        direct.client.script_kill()
        script.join()
    send_acts(direct, file, "next")
    eventually(lambda: once(file, "next"), 30)
    eventually(lambda: depth.read_depth(direct, "default").in_flight == 0)


def test_the_worker_lived_through_it(worker: OneWorker, direct: Store) -> None:
    """One worker process ran through all the tests above, and made no dead letter."""
    assert worker.process.poll() is None
    assert not [
        (letter.reason, letter.detail) for letter in dead_letters.read_dead_letters(direct, "default")
    ]
