"""Fixtures: a master with its replica, and a sentinel over them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.harness.replicated_server import Replicated, is_online, run_replicated


@pytest.fixture
def replicated(tmp_path: Path, program: Callable[[str], str], eventually: Eventually) -> Iterator[Replicated]:
    """Run them; the replica has caught up."""
    with run_replicated(program("redis-server"), tmp_path) as servers:
        eventually(lambda: is_online(servers.master), 30)
        yield servers
