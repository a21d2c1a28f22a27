"""`millpond flower` as a command: its login, its metrics, its port, and how it ends."""

import base64
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from millpond.tasks.settings import Settings, child_environment

COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())", "flower"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def flower(url: str) -> Iterator[Start]:
    """Start `millpond flower` for a broker without workers."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, logins: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        chosen = Settings(broker_url=url, flower_basic_auth=logins)  # type: ignore[arg-type]
        started.append(
            subprocess.Popen(
                [*COMMAND, *arguments],
                env={**child_environment(chosen), "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_it_serves_on_a_free_port_and_ends_when_told(flower: Start) -> None:
    """Port 0 takes a free port and prints it; metrics and liveness are there; SIGTERM ends Flower with 0."""
    running = flower("--port", "0")
    page = _address(running)
    assert urlsplit(page).hostname == "127.0.0.1"
    assert _get(page + "healthcheck") == (200, "OK")
    assert "# HELP flower_events_total" in _get(page + "metrics")[1]
    taken = flower("--port", str(urlsplit(page).port))
    assert taken.wait(60) == 1
    assert taken.stderr is not None
    assert "Try another --port" in taken.stderr.read()
    running.terminate()
    assert running.wait(60) == 0


def test_with_a_login_nothing_is_shown_without_it(flower: Start) -> None:
    """Only a login of the settings or of the command line opens the pages."""
    page = _address(flower("--port", "0", "--basic-auth", "bob:builder", logins=("ann:secret",)))
    assert _get(page + "workers")[0] == 401
    assert _get(page + "workers", "ann:wrong")[0] == 401
    assert _get(page + "workers", "ann:secret")[0] == 200
    assert _get(page + "workers", "bob:builder")[0] == 200


def test_without_a_login_it_changes_nothing(flower: Start) -> None:
    """The part of Flower that stops workers and revokes tasks is closed without a login."""
    page = _address(flower("--port", "0"))
    status, said = _get(page + "api/worker/shutdown/default.1@here", method="POST")
    assert (status, "without authentication" in said) == (401, True)


def _address(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    said = running.stdout.readline()
    assert said.startswith("Flower is at http://"), running.stderr and running.stderr.read()
    return said.split()[3].rstrip(",")


def _get(url: str, login: str | None = None, *, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
