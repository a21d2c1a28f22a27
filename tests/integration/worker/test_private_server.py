"""The private server: strangers are refused, two run side by side, and tasks survive a restart."""

import stat
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from millpond.broker.server import is_reachable
from millpond.tasks.errors import StartError
from millpond.worker.local import valkey
from millpond.worker.local.valkey import Server


def test_every_supported_server_starts(each_store: Store) -> None:
    """Valkey 9, Redis 7.0 and Redis 6.2 take the same configuration."""
    assert each_store.client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert each_store.client.config_get("appendonly")["appendonly"] == "yes"


def test_it_lets_nobody_in_without_the_password(server: Server) -> None:
    """The port is on loopback, and a client without the password is refused there too."""
    assert is_reachable(server.url)
    assert not is_reachable("redis://127.0.0.1:" + server.url.rpartition(":")[2])


def test_two_run_side_by_side(tmp_path: Path, server: Server) -> None:
    """A second server takes a port of its own, and a folder that only its user can enter."""
    with valkey.run_server(tmp_path / "second") as second:
        assert second.url != server.url
        assert is_reachable(second.url)
        assert stat.S_IMODE((tmp_path / "second").stat().st_mode) == 0o700
    assert not is_reachable(second.url)


def test_messages_are_there_after_a_restart(tmp_path: Path) -> None:
    """A message that the server took lives through its stop and its next start."""
    with valkey.run_server(tmp_path) as first:
        connect(first.url).client.lpush("email", b"a letter")
    with valkey.run_server(tmp_path) as second:
        assert connect(second.url).client.lrange("email", 0, -1) == [b"a letter"]


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error is one line with the server's own reason and the log to look at."""
    with pytest.raises(StartError, match=r"did not start: .*server\.log"):
        valkey.start_server(tmp_path, extra=["no-such-option yes"])
