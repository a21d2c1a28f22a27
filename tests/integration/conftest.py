"""Fixtures: a store for each module, forked commands, and a file in which handlers note their runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from tests.harness.forked_commands import ForkedCommands


@pytest.fixture(scope="module")
def module_store(module_url: str) -> Iterator[Store]:
    """Open a store on the module's database."""
    opened = connect(module_url)
    yield opened
    opened.close()


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
