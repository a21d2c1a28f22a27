"""A broker with fewer replicas than its setting or a send requires: no send returns as accepted."""

from collections.abc import Iterator

import pytest

from millpond.broker.errors import BrokerAway
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.valkey import embedded_binary
from tests.harness.own_server import OwnServer, run_own_server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server without replicas."""
    with run_own_server(OwnServer(embedded_binary(), tmp_path_factory.mktemp("server"), [])) as server:
        yield server


def test_a_repeat_does_not_hide_that_the_copies_are_missing(server: OwnServer) -> None:
    """The task of the first send is there, and may be lost in a fail-over: the duplicate is no success."""
    settings = Settings(broker_url=server.url, send_copies=1, broker_timeout_seconds=1)
    with Client(settings=settings) as client:
        for _ in range(2):
            with pytest.raises(BrokerAway, match="0 of 1 replicas have it"):
                client.send(Square(n=1), once="key")


def test_a_master_that_requires_a_replica_counts_as_away(server: OwnServer) -> None:
    """Under `min-replicas-to-write` the server refuses writes, which the README promises as `BrokerAway`."""
    server.client.config_set("min-replicas-to-write", 1)
    with Client(server.url) as client, pytest.raises(BrokerAway, match="min-replicas-to-write"):
        client.send(Square(n=1))
