"""A user of the server with the rights named in the README, to one key prefix, is enough."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from millpond.broker.connection import connect
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.errors import BrokerError
from millpond.producer.client import Client
from millpond.tasks.app import celery_app
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually
from tests.harness.flower_process import LOGIN, Visitor
from tests.harness.manual_fetcher import ManualFetcher
from tests.harness.own_server import OwnServer, run_own_server

PREFIX = "shop:"
README = Path(__file__).parents[3] / "broker" / "README.md"


def rules() -> str:
    """Return the line of the README, as it stands there."""
    found = re.search(r"^ACL SETUSER millpond (.+)$", README.read_text(), re.MULTILINE)
    assert found
    return found[1].replace("PREFIX", PREFIX).replace("PASSWORD", "secret")


@pytest.fixture
def guarded(tmp_path: Path, program: Callable[[str], str]) -> Iterator[OwnServer]:
    """Run a server whose default user is off."""
    binary = program("redis-server")
    server = OwnServer(binary, tmp_path / "server", ["user root on >root ~* &* +@all"])
    server.options = {"username": "root", "password": "root"}
    with run_own_server(server):
        server.client.execute_command("ACL", "SETUSER", "default", "off")
        server.client.execute_command("ACL", "SETUSER", "millpond", *rules().split())
        yield server


@pytest.mark.slow
def test_the_rules_of_the_readme_are_enough(guarded: OwnServer, eventually: Eventually) -> None:
    """Sending, running, batches, control, the scheduler and every page of Flower: nothing is denied."""
    url = f"redis://millpond:secret@127.0.0.1:{guarded.port}/0"
    every = ScheduleSettings.model_validate({"kind": "squares.square", "every": "1s", "fields": {"n": 3}})
    settings = Settings(
        broker_url=url, key_prefix=PREFIX, drain_seconds=5, schedule={"s": every}, flower_basic_auth=(LOGIN,)
    )
    with (
        embedded(settings, pools=["default"], flower=True, scheduler=True) as pond,
        Client(settings=settings) as client,
    ):
        with client.batch(then=Square(n=1)) as batch:
            batch.send_many(Square(n=n) for n in range(20))
            batch.send(Square(n=20), delay=timedelta(seconds=0.2))
        assert batch.wait(timedelta(seconds=30)).succeeded == 21
        assert len(list(batch.results())) == 21
        waits = client.send(Square(n=1), delay=timedelta(hours=1), once="one")
        assert client.cancel(waits.id).unacknowledged == ()
        inspect = celery_app(settings).control.inspect(timeout=5, limit=1)
        assert eventually(inspect.ping, 20)
        ann = Visitor(f"{pond.flower_url}", login=LOGIN)
        for page in (
            "/workers",
            "/broker",
            "/pools",
            "/queues",
            "/dead",
            "/batches",
            "/schedules",
            "/metrics",
        ):
            assert ann.get(page).status == 200, page
        assert ann.post("/queues/default/pause", []).status == 200
        assert ann.post("/queues/default/resume", []).status == 200
    assert [(entry["reason"], entry["object"]) for entry in guarded.client.acl_log()] == []
    foreign = [key for key in guarded.client.keys("*") if not key.startswith(PREFIX.encode())]
    assert foreign == []


def test_another_prefix_is_denied(guarded: OwnServer) -> None:
    """The same user under another prefix is refused, in a line with the server's words."""
    url = f"redis://millpond:secret@127.0.0.1:{guarded.port}/0"
    with (
        Client(url, settings=Settings(key_prefix="other:")) as client,
        pytest.raises(BrokerError, match=r"(?i)no permissions"),
    ):
        client.send(Square(n=1))


def test_without_the_right_to_the_channel_the_refusal_is_named(guarded: OwnServer) -> None:
    """A user of Redis 7 has no channel without a rule for it. The error names the missing right."""
    guarded.client.execute_command("ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "resetchannels")
    store = connect(f"redis://mute@127.0.0.1:{guarded.port}/0")
    for protocol in (2, 3):
        url = f"redis://mute:x@127.0.0.1:{guarded.port}/0"
        process = ManualFetcher(url, store, "plain", InFlightMessages(), print, protocol=protocol)
        try:
            process.fetcher.on_tick()
            with pytest.raises(RedisConnectionError, match=r"subscription .*(?i:channel)"):
                process.fetcher.on_control_change()
        finally:
            process.close()
