"""Under gevent a body that blocks the loop keeps its lease: the thread that renews it is a real one."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.broker.connection import connect
from millpond.broker.keys import QueueKeys
from millpond.broker.server import server_time_ms
from tests.applications.ways import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

BLOCKED_SECONDS = 6


def test_a_lease_is_kept_while_a_body_blocks_the_loop(
    url: str, tmp_path: Path, eventually: Callable[..., object]
) -> None:
    """A body that blocks the loop for three leases loses no lease, and its task is delivered once."""
    pytest.importorskip("gevent")
    broker = url.replace("redis://", "millpond://")
    more = {"APP_NOTES": str(tmp_path / "notes"), "APP_LEASE_SECONDS": "2"}
    env = environment("transport", broker, [Path(__file__).parent], {**more, "APP_RESULTS": url})
    command = [sys.executable, "-m", "celery", "-A", "orders", "worker", "-P", "gevent", "-c", "4"]
    log, notes, store = tmp_path / "log", tmp_path / "notes", connect(url)
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "-Q", "default", "-l", "INFO"], cwd=tmp_path, env=env, stdout=out, stderr=out
        ) as process,
    ):
        try:
            eventually(lambda: " ready." in log.read_text(), 60)
            send = f"from orders import block; block.delay({BLOCKED_SECONDS})"
            subprocess.run([sys.executable, "-c", send], env=env, check=True, timeout=60)
            eventually(lambda: notes.exists() and notes.read_text() == "began\n", 60)
            consumers, ends_at = QueueKeys("default").consumers, time.monotonic() + BLOCKED_SECONDS - 1
            while time.monotonic() < ends_at:
                [(_, leased_until)] = store.client.zrange(consumers, 0, -1, withscores=True)
                assert leased_until > server_time_ms(store)
                time.sleep(0.2)
            eventually(lambda: notes.read_text() == "began\nended\n", 30)
        finally:
            process.terminate()
            process.wait(60)
            store.close()
    assert notes.read_text() == "began\nended\n"
