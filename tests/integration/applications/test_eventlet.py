"""A stock worker with eventlet's greenlets on the transport."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.broker.connection import connect
from millpond.broker.inspect.depth import read_depth
from millpond.broker.keys import QueueKeys
from tests.applications.ways import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

#: Sends ten tasks that sleep and waits for them; then a delayed one, and three that run on.
CLIENT = """
from orders import sleep, add
tasks = [sleep.delay({seconds}) for _ in range(10)]
[task.get(timeout=60) for task in tasks]
print(add.apply_async((2, 3), countdown=0.5).get(timeout=60))
[sleep.delay({seconds}) for _ in range(3)]
"""
SECONDS = 3


def test_a_worker_with_eventlet_runs_its_tasks_side_by_side(
    url: str, tmp_path: Path, eventually: Callable[..., object]
) -> None:
    """Ten tasks sleep at once, a delayed task runs, and a stopped worker finishes its running tasks."""
    pytest.importorskip("eventlet")
    broker = url.replace("redis://", "millpond://")
    here, more = [Path(__file__).parent], {"APP_RESULTS": url}
    env, log, store = environment("transport", broker, here, more), tmp_path / "log", connect(url)
    command = [sys.executable, "-m", "celery", "-A", "orders", "worker", "-P", "eventlet", "-c", "10"]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "-Q", "default", "-l", "INFO"], cwd=tmp_path, env=env, stdout=out, stderr=out
        ) as process,
    ):
        try:
            eventually(lambda: " ready." in log.read_text(), 60)
            client = [sys.executable, "-c", CLIENT.format(seconds=SECONDS)]
            began = time.monotonic()
            said = subprocess.run(client, env=env, check=True, timeout=150, capture_output=True, text=True)
            assert said.stdout == "5\n"
            assert time.monotonic() - began < 10 * SECONDS
            eventually(lambda: read_depth(store, "default").in_flight == 3, 60)
        finally:
            process.terminate()
            process.wait(60)
    left = read_depth(store, "default")
    assert (process.returncode, left.ready, left.in_flight, left.dead) == (0, 0, 0, 0)
    assert left.counters["settled"] == 14
    assert not store.client.exists(QueueKeys("default").deliveries)
    store.close()
