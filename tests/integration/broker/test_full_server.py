"""A server that is out of memory: what would fill it further is refused, what empties it can be done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.broker import audit, limits
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import depth as inspect_depth
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.valkey import embedded_binary, serving


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of a server of its own."""
    with (
        serving(tmp_path, binary=embedded_binary()) as server,
        Client(server.url, settings=Settings()) as made,
    ):
        yield made


def fill(store: Store) -> None:
    """Leave the server no free memory."""
    store.client.config_set("maxmemory", 1)


def test_no_policy_fills_a_full_server_further(client: Client) -> None:
    """Shedding would keep the old message and take the new one: it is refused as any other send."""
    limits.change(client.store, "default", bound=1)
    client.send(Square(n=1))
    fill(client.store)
    for policy in ("reject", "shed"):
        with pytest.raises(BrokerError, match="out of memory"):
            client.send(Square(n=2), overflow=policy)  # type: ignore[arg-type]
    depth = inspect_depth.depth(client.store, "default")
    assert (depth.ready, depth.dead, depth.counters.get("shed", 0)) == (1, 0, 0)


def test_a_queue_is_paused_and_resumed_on_a_full_server(client: Client) -> None:
    """What fills the server may be a queue that was paused; the change is done, and noted."""
    client.send(Square(n=1))
    fill(client.store)
    limits.pause(client.store, "default")
    assert limits.read(client.store, "default").paused
    limits.resume(client.store, "default")
    assert not limits.read(client.store, "default").paused
    audit.record(client.store, "ann", "resumed queue default")
    assert [change.action for change in audit.recent(client.store)] == ["resumed queue default"]
