"""A task does not wait behind a busy process while a slot elsewhere is idle.

The long task ends when the test opens its gate: by then every short one must have started.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from celery import Celery

from millpond import Client
from millpond.broker.connection import Store
from millpond.broker.inspect import depth as inspect_depth
from tests.conftest import Eventually
from tests.harness.noted import read_names
from tests.harness.one_worker import settings_for, workers

pytestmark = pytest.mark.slow

EXECUTORS = ("prefork", "threads")
SHORT = 24


@contextmanager
def stock_workers(
    url: str, pool: str, folder: Path, *, count: int, multiplier: int, early: bool = False
) -> Iterator[None]:
    """Run `celery worker` processes of one slot on Millpond's transport, until the block is left."""
    words = [sys.executable, "-m", "celery", "-A", "stock_app", "worker", "-P", pool, "-c", "1", "-l", "INFO"]
    words += ["--without-mingle", "--without-gossip"]
    environment = {**os.environ, "STOCK_URL": url, "STOCK_MULTIPLIER": str(multiplier)}
    environment |= {"STOCK_EARLY": "1"} if early else {}
    logs = [folder / f"stock-{n}.log" for n in range(count)]
    started = []
    for n, log in enumerate(logs):
        with log.open("wb") as sink:
            started.append(
                subprocess.Popen(
                    [*words, "-n", f"w{n}@stock"],
                    cwd=Path(__file__).parent,
                    env=environment,
                    stdout=sink,
                    stderr=sink,
                )
            )
    try:
        deadline = time.monotonic() + 120
        while not all(" ready." in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.05)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def started_at(file: Path) -> dict[str, float]:
    """Return when each task of the stock application started."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: float(at) for name, at in (line.split() for line in lines)}


def nothing_counted(store: Store) -> bool:
    """True if everything was settled, and no delivery was counted."""
    depth = inspect_depth.read_depth(store, "default")
    return (depth.ready, depth.in_flight, depth.dead, depth.counters.get("redelivered", 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_short_tasks_pass_a_long_one_to_an_idle_process(
    executor: str, url: str, plain_store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """Short tasks that a process had fetched behind a long one start in another, idle process."""
    import broker_kinds  # noqa: F401

    pool = {"executor": executor, "concurrency": 1, "prefetch": 16}
    settings = settings_for(url, pool=pool)
    with workers(settings, tmp_path, count=2), Client(settings=settings) as client:

        def act(name: str, what: str = "note") -> tuple[str, dict[str, object]]:
            return "broker.act", {"file": str(file), "name": name, "what": what}

        client.send_many([act(f"before{n}") for n in range(200)])  # both learn to prefetch
        eventually(lambda: len(read_names(file, "end")) == 200, 20)
        client.send_many([act("long", "wait"), *(act(f"n{n}") for n in range(SHORT))])
        eventually(lambda: len(read_names(file)) == 200 + SHORT + 1, 10)
        assert "long" not in read_names(file, "end")
        file.with_name(f"{file.name}.go").touch()
        eventually(lambda: nothing_counted(plain_store))


@pytest.mark.parametrize(
    ("pool", "early"), [("prefork", False), ("threads", False), ("prefork", True), ("threads", True)]
)
def test_short_tasks_pass_a_long_one_under_stock_workers(
    pool: str, early: bool, url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Short tasks pass a long one on stock workers too, acknowledged early or late; a lone one starts."""
    file = tmp_path / "starts"
    app = Celery(broker=url, set_as_current=False)
    app.conf.task_default_queue = "default"

    def send(name: str, seconds: float | None = 0) -> None:
        app.send_task("stock.hold", kwargs={"file": str(file), "name": name, "seconds": seconds})

    with stock_workers(url, pool, tmp_path, count=2, multiplier=16, early=early):
        waits = []
        for n in range(7):
            at = time.time()
            send(f"alone{n}")
            eventually(lambda n=n: f"alone{n}" in started_at(file))
            waits.append(started_at(file)[f"alone{n}"] - at)
        assert median(waits) < 0.3, waits
        for n in range(100):
            send(f"before{n}")
        eventually(lambda: len(started_at(file)) == 107, 20)
        send("long", None)
        for n in range(SHORT):
            send(f"n{n}")
        eventually(lambda: len(started_at(file)) == 107 + SHORT + 1, 10)
        file.with_name(f"{file.name}.go").touch()
        eventually(lambda: nothing_counted(plain_store), 20)
    app.close()
