"""A stock worker with eventlet's greenlets on the transport."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_depth
from millpond.broker.keys import QueueKeys
from tests.applications.ways import worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

#: Sends ten tasks that sleep, waits for them and prints how long that took; then a delayed one, and others.
CLIENT = """
import time
from orders import sleep, add
began = time.monotonic()
tasks = [sleep.delay({seconds}) for _ in range(10)]
[task.get(timeout=60) for task in tasks]
print(time.monotonic() - began)
print(add.apply_async((2, 3), countdown=0.5).get(timeout=60))
[sleep.delay({seconds}) for _ in range(3)]
"""
SECONDS = 3


def test_a_worker_with_eventlet_runs_its_tasks_side_by_side(
    url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Ten tasks sleep at once, a delayed task runs, and a stopped worker finishes its running tasks."""
    if find_spec("eventlet") is None:  # an import here would change how later tests of this process fork
        pytest.skip("eventlet is not installed")
    how = {"paths": [Path(__file__).parent], "pool": "eventlet", "slots": 10, "queues": ("default",)}
    with worker("transport", "orders", url, tmp_path, eventually, **how) as running:
        client = [sys.executable, "-c", CLIENT.format(seconds=SECONDS)]
        took, total = running.run(*client, seconds=150).split()
        assert (float(took) < 10 * SECONDS, total) == (True, "5")
        eventually(lambda: read_depth(plain_store, "default").in_flight == 3, 60)
    left = read_depth(plain_store, "default")
    assert (running.process.returncode, left.ready, left.in_flight, left.dead) == (0, 0, 0, 0)
    assert left.counters["settled"] == 14
    assert not plain_store.client.exists(QueueKeys("default").deliveries)
