"""Share one Flower with a login and one without among all tests of pages, and a store on their database."""

from collections.abc import Iterator

import pytest

from millpond.broker.connection import Store, connect
from millpond.worker.local.valkey import Server
from tests.harness.flower_process import LOGIN, PREFIX, Visitor, run_flower


@pytest.fixture(scope="session")
def pages_url(server: Server) -> str:
    """Return the URL of a database that other tests do not come to; each test has queues of its own."""
    return f"{server.url.rpartition('/')[0]}/1999"


@pytest.fixture(scope="session")
def watched(pages_url: str) -> Iterator[Store]:
    """Open a store on that database, under the prefix that Flower is told."""
    opened = connect(pages_url, prefix=PREFIX)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def flower_url(pages_url: str) -> Iterator[str]:
    """Run a Flower that lets ann in."""
    with run_flower(pages_url, flower_basic_auth=(LOGIN,)) as url:
        yield url


@pytest.fixture(scope="session")
def public_flower_url(pages_url: str) -> Iterator[str]:
    """Run a Flower that needs no login."""
    with run_flower(pages_url) as url:
        yield url


@pytest.fixture
def ann(flower_url: str) -> Visitor:
    """Visit Flower with a login."""
    return Visitor(flower_url)
