"""Fixture: the event loop of tests that are coroutines."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run tests that are marked `anyio` by asyncio, as the gateway is run."""
    return "asyncio"
