"""A worker's log lines about a broker that may lose messages."""

import re
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from millpond.broker.server import find_durability_risks
from millpond.monitor.doctor.broker import examine_broker
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.own_server import OwnServer, run_own_server

EVICTS = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"]
LOCKED = ["user default on nopass ~* &* +@all -config"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["appendonly yes", "maxmemory-policy allkeys-lru"], []),
        (
            ["appendonly yes", *EVICTS],
            ["may evict messages .* allkeys-lru.*: set maxmemory-policy noeviction"],
        ),
        ([], ["keeps nothing on disk"]),
        (["save 60 1"], ["no append-only file, so a crash"]),
        ([*LOCKED, *EVICTS], ["may evict", "no append-only file"]),
    ],
)
def test_the_ways_to_lose_messages_are_named(lines: list[str], expected: list[str], tmp_path: Path) -> None:
    """Eviction and a server without a disk are found, also where CONFIG is denied, and no other risk is."""
    with run_own_server(OwnServer(embedded_binary(), tmp_path, lines)) as server:
        found = find_durability_risks(connect(server.url))
    assert len(found) == len(expected)
    assert all(re.search(pattern, line) for pattern, line in zip(expected, found, strict=True))


def test_nothing_is_said_to_be_safe_where_the_server_does_not_tell(tmp_path: Path) -> None:
    """A server that denies INFO is neither safe nor at risk; `millpond doctor` warns that it is unknown."""
    denies = ["appendonly yes", "user default on nopass ~* &* +@all -config -info"]
    with run_own_server(OwnServer(embedded_binary(), tmp_path, denies)) as server:
        store = connect(server.url)
        assert find_durability_risks(store) is None
        (found,) = (each for each in examine_broker(store) if each.check == "persistence")
    assert (found.status, "unknown" in found.found) == ("warn", True)


def test_a_worker_says_so_when_it_starts(tmp_path: Path, eventually: Eventually) -> None:
    """The log of a worker has one line for each risk, with the setting against it."""
    with (
        run_own_server(OwnServer(embedded_binary(), tmp_path / "server", EVICTS)) as server,
        workers(settings_for(server.url), tmp_path) as (worker,),
    ):
        eventually(lambda: "set appendonly yes" in worker.log)
        assert worker.log.count("may evict messages") == 1


def test_the_private_server_is_safe(store: Store) -> None:
    """The server that Millpond starts itself loses nothing."""
    assert find_durability_risks(store) == []
