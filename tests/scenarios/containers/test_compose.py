"""Run docker-compose.yml for real: its demo, its doors, and nothing lost between two runs."""

import base64
import json
import re
import urllib.request
from urllib.error import HTTPError

import pytest

from millpond import Client, Settings, Square
from tests.conftest import Eventually
from tests.scenarios.containers import ledger
from tests.scenarios.containers.conftest import SERVICES
from tests.scenarios.containers.load import Load
from tests.scenarios.containers.stack import Stack, inspect

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
CLI = ("run", "--rm", "-T", "cli")


def test_the_demo_shows_the_whole_thing(stack: Stack, eventually: Eventually) -> None:
    """With the profile `demo`, a producer has its pictures shrunk and its mails in the sink."""
    stack.compose("--profile", "demo", "up", "-d", "--no-build", "sink", "producer")
    producer = stack.container("producer")
    eventually(lambda: inspect(producer, "{{.State.Status}}") == "exited", 180, every_seconds=0.5)
    said = stack.compose("--profile", "demo", "logs", "--no-color", "producer")
    assert inspect(producer, "{{.State.ExitCode}}") == "0", said
    shrunk = stack.compose("exec", "-T", "worker-files", "sh", "-c", "ls -s /srv/files/demo-thumbnails/*")
    assert len(shrunk.splitlines()) == 40
    mails = stack.compose("--profile", "demo", "logs", "--no-color", "sink")
    assert len(set(re.findall(r"reader-\d+@example.org", mails))) == 200


def test_the_gateway_asks_for_the_token(stack: Stack) -> None:
    """The gateway takes a task with the token of .env, and none without."""
    send = f"{stack.gateway_url}/send/squares.square"
    asked = urllib.request.Request(send, b'{"n": 7}', {"Content-Type": "application/json"})
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(asked, timeout=10)
    asked.add_header("Authorization", f"Bearer {stack.token}")
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.status == 202


def test_flower_asks_who_looks(stack: Stack) -> None:
    """Flower shows nothing without the login of .env, and its page with it."""
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.flower_url}/workers", timeout=10)
    assert b"Flower" in flower(stack, "/workers")


def test_an_autoscaler_is_told_what_there_is_to_do(stack: Stack) -> None:
    """The path that KEDA's objects name counts the ready tasks of a pool."""
    scaling = "/api/millpond/scaling/default"
    stack.compose(*CLI, "queue", "pause", "default")
    with Client(stack.broker_url, settings=Settings()) as client:
        client.send_many(Square(n=n) for n in range(10))
    told = json.loads(flower(stack, scaling))
    stack.compose(*CLI, "queue", "resume", "default")
    assert told["tasks"] in (10, 11)  # the scheduler may have sent its hourly one
    assert told["oldest_seconds"] > 0
    with pytest.raises(HTTPError, match="404"):
        flower(stack, "/api/millpond/scaling/mail")


def test_nothing_is_lost_between_down_and_up(stack: Stack, eventually: Eventually) -> None:
    """Tasks that wait at `docker-compose down` run after the next `up`, each once."""
    stack.compose(*CLI, "queue", "pause", "default")
    with Load(stack.broker_url, ("default",), rate=200, hold_seconds=0) as load:
        eventually(lambda: len(load.taken) >= 200, 30)
    stack.compose("down")
    stack.up()
    stack.compose(*CLI, "queue", "resume", "default")
    for service in SERVICES:
        eventually(lambda service=service: stack.is_healthy(service), 120, every_seconds=0.5)
    load.finish(eventually)
    found = ledger.runs(stack.ledger_url, load.taken)
    assert ledger.lost(load.taken, found) == []
    assert ledger.repeats(found, []) == (0, [])


def flower(stack: Stack, path: str) -> bytes:
    """Return Flower's answer to a request with the login."""
    login = base64.b64encode(":".join(stack.login).encode()).decode()
    asked = urllib.request.Request(stack.flower_url + path, headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(asked, timeout=20) as page:
        return bytes(page.read())
