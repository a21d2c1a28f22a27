"""An application whose broker is away, or whose URL is nonsense, meets one exception with one line."""

import json
import sys

import pytest

from tests.harness.run_to_end import run_to_end

AWAY = "redis://127.0.0.1:1/0"
USES = [
    (AWAY, "client.send(Square(n=1))", "BrokerAway"),
    (AWAY, "client.send_many([Square(n=1)])", "BrokerAway"),
    (AWAY, "client.batch().send(Square(n=1))", "BrokerAway"),
    (AWAY, "client.open_batch('x').summary()", "BrokerAway"),
    (AWAY, "client.find('x')", "BrokerAway"),
    ("redis://nowhere.invalid:6379/0", "client.send(Square(n=1))", "BrokerAway"),
    ("nonsense", "client.send(Square(n=1))", "BadBrokerUrl"),
    ("http://example.org", "client.send(Square(n=1))", "BadBrokerUrl"),
    ("redis://localhost:port/0", "client.send(Square(n=1))", "BadBrokerUrl"),
]

#: Uses the client in each of these ways, and writes each traceback.
APPLICATION = """
import json, sys, traceback
from millpond import Client, Square

for url, uses, _named in json.loads(sys.argv[1]):
    try:
        client = Client(url)
        exec(uses)
    except Exception:
        print(json.dumps(traceback.format_exc()))
    else:
        print(json.dumps("nothing was raised"))
"""


@pytest.fixture(scope="module")
def endings() -> list[str]:
    """Return the traceback of an application for each use."""
    argv = [sys.executable, "-c", APPLICATION, json.dumps(USES)]
    done = run_to_end(argv, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(USES)), ids=[f"{url}-{uses}" for url, uses, _named in USES])
def test_an_application_gets_one_exception(number: int, endings: list[str]) -> None:
    """An application gets one traceback, no chain; its last line has the failed call, reason and remedy."""
    said, (_url, _uses, named) = endings[number], USES[number]
    assert said.count("Traceback (most recent call last)") == 1
    assert "During handling" not in said
    assert "direct cause" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"millpond.broker.errors.{named}: ")
    assert "cannot be" in last
