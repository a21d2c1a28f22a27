"""An application whose broker is away, or whose URL is nonsense, meets one exception with one line."""

import subprocess
import sys

import pytest

AWAY = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("url", "uses", "named"),
    [
        (AWAY, "client.send(Square(n=1))", "BrokerAway"),
        (AWAY, "client.send_many([Square(n=1)])", "BrokerAway"),
        (AWAY, "client.batch().send(Square(n=1))", "BrokerAway"),
        (AWAY, "client.open_batch('x').summary()", "BrokerAway"),
        (AWAY, "client.find('x')", "BrokerAway"),
        ("redis://nowhere.invalid:6379/0", "client.send(Square(n=1))", "BrokerAway"),
        ("nonsense", "client.send(Square(n=1))", "BadBrokerUrl"),
        ("http://example.org", "client.send(Square(n=1))", "BadBrokerUrl"),
        ("redis://localhost:port/0", "client.send(Square(n=1))", "BadBrokerUrl"),
    ],
)
def test_an_application_gets_one_exception(url: str, uses: str, named: str) -> None:
    """One traceback, no chain, and a last line that says what could not be done, why, and what to look at."""
    program = f"from millpond import Client, Square\nclient = Client({url!r})\n{uses}\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "During handling" not in done.stderr
    assert "direct cause" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"millpond.broker.errors.{named}: ")
    assert "cannot be" in last
