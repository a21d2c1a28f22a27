"""A server that answers and takes no writes is told from one that is well, and from one that is away."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

import millpond
from broker import writing
from broker.connection import Store, connect
from tasks.settings import settings
from worker.valkey import embedded_binary, serving


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Run a server whose memory is full, and point the commands at it."""
    with serving(tmp_path, binary=embedded_binary()) as server:
        opened = connect(server.url)
        opened.client.config_set("maxmemory", 1)
        monkeypatch.setenv("MILLPOND_BROKER_URL", server.url)
        settings.cache_clear()
        yield opened
        settings.cache_clear()
        opened.close()


def test_a_full_server_is_said_to_refuse_writes(
    full: Store, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics say so and the reason is the server's; asking leaves nothing behind on one that is well."""
    assert "used memory > 'maxmemory'" in (writing.refusal(full) or "")
    assert millpond.main(["metrics"]) == 0
    told = capsys.readouterr().out
    assert "millpond_broker_up 1.0" in told
    assert "millpond_broker_takes_writes 0.0" in told
    assert writing.refusal(store) is None
    assert isinstance(store.client, Redis)
    assert store.client.dbsize() == 0
