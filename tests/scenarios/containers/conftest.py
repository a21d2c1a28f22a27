"""Fixtures: an image of this checkout, and docker-compose.yml running with it."""

from collections.abc import Iterator

import pytest

from tests.conftest import Eventually
from tests.scenarios.containers import images
from tests.scenarios.containers.stack import Stack

#: Every service of docker-compose.yml that runs without a profile.
SERVICES = ("valkey", "worker-email", "worker-files", "worker-default", "gateway", "scheduler", "flower")


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image of this checkout and return its tag. Skip the test if no container can run here."""
    if reason := images.why_not():
        pytest.skip(reason)
    return images.build()


@pytest.fixture(scope="session")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually) -> Iterator[Stack]:
    """Run docker-compose.yml until every service is healthy. Remove all with its volumes at the end."""
    running = Stack(tmp_path_factory.mktemp("stack"))
    try:
        running.up()
        for service in SERVICES:
            eventually(lambda service=service: running.is_healthy(service), 180, every_seconds=0.5)
        yield running
    finally:
        running.remove()
