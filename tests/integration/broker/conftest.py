"""Give the broker's tests a database for a module, and a file in which bodies note their runs."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.connection import Store, connect
from worker.valkey import Server


@pytest.fixture(scope="module")
def module_url(server: Server) -> str:
    """Return the URL of a database that only this module uses; tests/conftest.py counts from 1."""
    return f"{server.url.rpartition('/')[0]}/{1_000 + secrets.randbelow(1_000)}"


@pytest.fixture(scope="module")
def module_store(module_url: str) -> Iterator[Store]:
    """Open a store on the module's database."""
    opened = connect(module_url)
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file in which bodies note their runs."""
    return tmp_path / "notes"
