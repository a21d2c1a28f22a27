"""Fixtures: one gateway without workers, shared by most modules; each test has its own queue."""

from collections.abc import Iterator

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store, connect
from millpond.tasks.settings import Gateway, Settings
from millpond.worker.local.valkey import Server
from tests.harness.gateway_process import GatewayProcess, run_gateway

#: A database that no counter reaches.
DATABASE = 1_990


@pytest.fixture(scope="session")
def gateway_url(server: Server) -> str:
    """Return the URL of the database of the shared gateway."""
    return f"{server.url.rpartition('/')[0]}/{DATABASE}"


@pytest.fixture(scope="session")
def gateway(gateway_url: str) -> Iterator[GatewayProcess]:
    """Run a gateway with small sizes, so that a test can exceed them."""
    sizes = Gateway(max_task_bytes=20_000, max_stream_bytes=2_000_000, max_batch_tasks=50, wait_seconds=20)
    with run_gateway(Settings(broker_url=gateway_url, drain_seconds=5, gateway=sizes)) as started:
        yield started


@pytest.fixture(scope="session")
def broker(gateway_url: str) -> Iterator[Store]:
    """Open a store on the shared gateway's database."""
    opened = connect(gateway_url)
    yield opened
    opened.close()


@pytest.fixture
def queue(broker: Store, request: pytest.FixtureRequest) -> str:
    """Return the name of a queue of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    limits.declare_limits(broker, name, {"bound": 1_000}, authoritative=True)
    return name
