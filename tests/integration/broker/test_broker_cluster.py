"""A server in cluster mode: used by the node of one slot, else refused in one line by every program."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from redis.crc import key_slot

from millpond.broker import cluster
from millpond.broker.connection import connect
from millpond.broker.errors import BadBrokerUrl, BrokerError
from millpond.producer.client import Client
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually
from tests.harness.forked_commands import ForkedCommands
from tests.harness.own_server import OwnServer, free_port, run_own_server
from tests.harness.run_to_end import run_to_end

#: A hash tag of the first node's slots, and one of the second's.
TAG, OTHER = "{b}:", "{a}:"


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str], eventually: Eventually
) -> Iterator[list[OwnServer]]:
    """Run a cluster of two nodes, each with half of the slots."""
    binary = program("redis-server")
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("cluster")
        found = []
        for name in "ab":  # a port of a node is by default 10,000 above, where there may be none
            lines = ["cluster-enabled yes", "cluster-node-timeout 2000", f"cluster-port {free_port()}"]
            found.append(stack.enter_context(run_own_server(OwnServer(binary, folder / name, lines))))
        for server, (first, last) in zip(found, ((0, 8191), (8192, 16383)), strict=True):
            server.client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
        bus = int(found[1].lines[-1].split()[1])
        found[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", found[1].port, bus)
        for server in found:
            eventually(lambda s=server: s.client.cluster("INFO")["cluster_state"] == "ok", 30)
        assert key_slot(TAG.encode()) < 8192 < key_slot(OTHER.encode())
        yield found


def test_it_works_by_the_node_of_the_slot(nodes: list[OwnServer]) -> None:
    """With a hash tag and the node of its slot a batch is done, and a task is cancelled."""
    settings = Settings(broker_url=nodes[0].url, key_prefix=TAG, drain_seconds=5)
    with embedded(settings, pools=["default"]), Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(20))
            batch.send(Square(n=20), delay=timedelta(seconds=0.2))
        assert batch.wait(timedelta(seconds=30)).succeeded == 21
        waits = client.send(Square(n=1), delay=timedelta(hours=1))
        assert client.cancel(waits.id).found is not None
    line = cluster.check_cluster(connect(nodes[0].url, prefix=TAG))
    assert line is not None
    assert re.search(r"cluster mode: every key lies in slot \d+, which this node serves", line)


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("", "set MILLPOND_KEY_PREFIX to a hash tag"),
        ("plain:", "set MILLPOND_KEY_PREFIX to a hash tag"),
        ("{}:", "set MILLPOND_KEY_PREFIX to a hash tag"),
        (OTHER, "this node does not serve the slot of the key prefix"),
    ],
)
def test_an_unusable_cluster_names_the_setting(nodes: list[OwnServer], prefix: str, says: str) -> None:
    """The line names the prefix or the node to set; a client that sends gets the same line."""
    store = connect(nodes[0].url, prefix=prefix)
    with pytest.raises(BadBrokerUrl, match=says) as refused:
        cluster.check_cluster(store)
    if prefix == OTHER:
        assert f"127.0.0.1:{nodes[1].port}" in str(refused.value)
    with (
        Client(nodes[0].url, settings=Settings(key_prefix=prefix)) as client,
        pytest.raises(BrokerError, match="cluster mode") as error,
    ):
        client.send(Square(n=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words", [["worker", "default"], ["scheduler"], ["gateway"], ["flower"]], ids=lambda each: each[0]
)
def test_every_program_refuses_in_one_line(
    words: list[str],
    nodes: list[OwnServer],
    commands: ForkedCommands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that would run on ends at once, with one line and no traceback."""
    monkeypatch.chdir(tmp_path)
    every = ScheduleSettings.model_validate({"kind": "squares.square", "every": "1s", "fields": {"n": 3}})
    settings = Settings(broker_url=nodes[0].url, schedule={"s": every})
    done = commands.run(words, child_environment(settings), timeout=60)
    lines = [line for line in done.stderr.splitlines() if "run as root" not in line]
    assert done.returncode == 2
    assert len(lines) == 1, lines
    assert "cluster mode" in lines[0]
    assert "MILLPOND_KEY_PREFIX" in lines[0]


def test_celerys_own_worker_command_refuses_too(nodes: list[OwnServer], tmp_path: Path) -> None:
    """`celery -A millpond worker` ends with one line too."""
    done = run_to_end(
        [sys.executable, "-m", "celery", "-A", "millpond.worker.app", "worker", "-Q", "default", "-c", "1"],
        env=child_environment(Settings(broker_url=nodes[0].url)),
        cwd=tmp_path,
    )
    assert done.returncode == os.EX_CONFIG
    assert "millpond: the broker runs in cluster mode" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_no_cluster_is_used_as_before(url: str) -> None:
    """A server that is not a cluster passes the check of the cluster, with every key prefix."""
    for prefix in ("", "plain:", TAG):
        assert cluster.check_cluster(connect(url, prefix=prefix)) is None
