"""Fixtures: a store for each module, a client, commands, and a file in which handlers note their runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from millpond.producer.client import Client
from millpond.tasks.settings import Settings, settings
from tests.harness.forked_commands import ForkedCommands


@pytest.fixture(scope="session", autouse=True)
def kinds_in_every_test(kinds_path: None) -> None:
    """Make the kinds of tests/kinds importable in each of these tests, and in its workers."""


@pytest.fixture(scope="module")
def module_store(module_url: str) -> Iterator[Store]:
    """Open a store on the module's database."""
    opened = connect(module_url)
    yield opened
    opened.close()


@pytest.fixture
def client(url: str, prefix: str) -> Iterator[Client]:
    """Open a client of the fresh database and prefix of the test."""
    with Client(settings=Settings(broker_url=url, key_prefix=prefix)) as opened:
        yield opened


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return `configure(url, prefix)`: commands that run in this process use that broker."""

    def use(url: str, prefix: str) -> None:
        monkeypatch.setenv("MILLPOND_BROKER_URL", url)
        monkeypatch.setenv("MILLPOND_KEY_PREFIX", prefix)
        settings.cache_clear()

    return use


@pytest.fixture(scope="session")
def commands() -> Iterator[ForkedCommands]:
    """Fork `millpond` commands, which saves each its start."""
    forked = ForkedCommands()
    yield forked
    forked.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file in which bodies note their runs."""
    return tmp_path / "notes"
