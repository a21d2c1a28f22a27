"""Under gevent a body that blocks the loop keeps its lease: the thread that renews it is a real one."""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys
from millpond.broker.server import server_time_ms
from tests.applications.ways import worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

BLOCKED_SECONDS = 6


def test_a_lease_is_kept_while_a_body_blocks_the_loop(
    url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """A body that blocks the loop for three leases loses no lease, and its task is delivered once."""
    if find_spec("gevent") is None:  # an import here would change how later tests of this process fork
        pytest.skip("gevent is not installed")
    notes, consumers = tmp_path / "notes", QueueKeys("default").consumers
    how = {"paths": [Path(__file__).parent], "pool": "gevent", "slots": 4, "queues": ("default",)}
    more = {"APP_NOTES": str(notes), "APP_LEASE_SECONDS": "2"}
    with worker("transport", "orders", url, tmp_path, eventually, **how, more=more) as running:
        running.run(sys.executable, "-c", f"from orders import block; block.delay({BLOCKED_SECONDS})")
        eventually(lambda: notes.exists() and notes.read_text() == "began\n", 60)
        ends_at = time.monotonic() + BLOCKED_SECONDS - 1
        while time.monotonic() < ends_at:
            [(_, leased_until)] = plain_store.client.zrange(consumers, 0, -1, withscores=True)
            assert leased_until > server_time_ms(plain_store)
            time.sleep(0.2)
        eventually(lambda: notes.read_text() == "began\nended\n", 30)
    assert notes.read_text() == "began\nended\n"
