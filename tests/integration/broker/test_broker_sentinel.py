"""A broker behind Sentinel: the master is killed, its replica takes over, and every client follows."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from millpond.broker.errors import BrokerError
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.harness.own_server import OwnServer, free_port, running

MASTER = "orders"


@pytest.fixture
def guarded(tmp_path: Path, missing: Callable[[str], NoReturn]) -> Iterator[tuple[str, OwnServer]]:
    """Run a master, its replica and a sentinel over them; give the URL and the master."""
    binary = shutil.which("redis-server") or missing("redis-server")
    lines = ["appendonly yes", "appendfsync always"]
    with ExitStack() as stack:
        master = stack.enter_context(running(OwnServer(binary, tmp_path / "master", lines)))
        follow = [*lines, f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0"]
        stack.enter_context(running(OwnServer(binary, tmp_path / "replica", follow)))
        watch = [
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        sentinel = OwnServer(binary, tmp_path / "sentinel", watch, port=free_port())
        stack.enter_context(running(sentinel, "--sentinel"))
        yield f"sentinel://127.0.0.1:{sentinel.port}/{MASTER}/0", master


@pytest.mark.slow
def test_a_fail_over_loses_nothing(
    guarded: tuple[str, OwnServer], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    """Messages of the replica run after it took over; meanwhile a send says why it fails."""
    url, master = guarded
    settings = Settings(broker_url=url, drain_seconds=5, broker_timeout_seconds=2)
    eventually(lambda: master.client.info("replication").get("slave0", {}).get("state") == "online", 30)
    with embedded(settings, pools=["default"]), Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(20))
        assert batch.wait(timedelta(seconds=30)).succeeded == 20
        later = client.batch()
        later.send_many((Square(n=n) for n in range(20)), timeout=timedelta(seconds=5))
        assert master.client.wait(1, 5000) == 1, "the replica has it all"
        master.kill()
        refusals = []

        def is_closed() -> bool:
            try:
                later.send(Square(n=20))
                later.close()
            except BrokerError as error:
                refusals.append(str(error))
                return False
            return True

        eventually(is_closed, 60, every_seconds=0.2)
        assert all("broker" in refusal and "\n" not in refusal for refusal in refusals)
        summary = later.wait(timedelta(seconds=60))
        assert summary.complete
        assert summary.succeeded == summary.sent >= 21
