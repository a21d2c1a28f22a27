"""A server that answers and takes no writes differs from one that is well, and from one that is away."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

import millpond
from millpond.broker import server
from millpond.broker.connection import Store, connect
from millpond.worker.local.valkey import embedded_binary, run_server
from tests.harness.flower_process import LOGIN, Visitor, run_flower


@pytest.fixture
def full(tmp_path: Path, configure: Callable[[str, str], None]) -> Iterator[Store]:
    """Run a server whose memory is full, and point the commands at it."""
    with run_server(tmp_path, binary=embedded_binary()) as server:
        opened = connect(server.url)
        opened.client.config_set("maxmemory", 1)
        configure(server.url, "")
        yield opened
        opened.close()


def test_a_full_server_is_said_to_refuse_writes(
    full: Store, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics report a refusal of writes with the server's reason; the check leaves no key behind."""
    assert "used memory > 'maxmemory'" in (server.find_write_refusal(full) or "")
    assert millpond.main(["metrics"]) == 0
    printed = capsys.readouterr().out
    assert "millpond_broker_up 1.0" in printed
    assert "millpond_broker_writable 0.0" in printed
    assert server.find_write_refusal(store) is None
    assert isinstance(store.client, Redis)
    assert store.client.dbsize() == 0


def test_flower_is_ready_while_the_broker_takes_writes(tmp_path: Path) -> None:
    """Flower's readiness is 200, and 503 with the reason while the broker refuses writes or is away."""
    with (
        run_server(tmp_path, binary=embedded_binary()) as server,
        closing(connect(server.url)) as store,
        run_flower(server.url, flower_basic_auth=(LOGIN,)) as url,
    ):
        ann = Visitor(url)
        assert ann.get("/api/millpond/ready").status == 200
        store.client.config_set("maxmemory", 1)
        refused = ann.get("/api/millpond/ready")
        store.client.shutdown(nosave=True)
        away = ann.get("/api/millpond/ready")
    assert (refused.status, "used memory > 'maxmemory'" in refused.text) == (503, True)
    assert (away.status, "cannot be reached" in away.text) == (503, True)
