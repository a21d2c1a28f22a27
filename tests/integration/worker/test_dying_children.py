"""A prefork child that dies in steps: its pipes close, and only later can it be waited for.

That is the order of the kernel. A tracer holds a dead process in between for as long as a test needs it.
"""

import ctypes
import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from millpond import Client
from millpond.broker.connection import Store
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.noted import read_names
from tests.harness.one_worker import settings_for, workers
from tests.harness.own_server import OwnServer, run_own_server

_SEIZE = 0x4206  # ptrace(2)


@contextmanager
def half_dead(pid: int, missing: Callable[[str], None]) -> Iterator[None]:
    """Kill a process; until the block is left it has no descriptors, and cannot be waited for."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    if ptrace(_SEIZE, pid, None, None):
        missing("the right to trace a process")
    os.kill(pid, signal.SIGKILL)
    try:
        yield
    finally:
        os.waitpid(pid, 0)


def listened_to(worker: int) -> int:
    """Count the children whose end the worker notices: it reads the pipe of each at two descriptors."""
    reading = []
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if not descriptor.lstat().st_mode & stat.S_IWUSR:
                reading.append(str(descriptor.readlink()))
    return sum(count == 2 for pipe, count in Counter(reading).items() if pipe.startswith("pipe:"))


def test_a_worker_survives_a_child_that_dies_as_the_broker_is_lost(
    url: str, store: Store, file: Path, tmp_path: Path, missing: Callable[[str], None], eventually: Eventually
) -> None:
    """A child's death that is half done when the connections are cut costs the child, not the worker."""
    import broker_kinds  # noqa: F401

    settings = settings_for(url, pool={"executor": "prefork", "concurrency": 1})
    with workers(settings, tmp_path) as [worker], Client(settings=settings) as client:
        parent = psutil.Process(worker.pid)
        [child] = parent.children()
        assert listened_to(worker.pid) == 1
        with half_dead(child.pid, missing):
            eventually(lambda: listened_to(worker.pid) == 0)
            store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            eventually(lambda: worker.log.count("Connected to") == 2)
            client.send_many([("broker.act", {"file": str(file), "name": "after"})])
        eventually(lambda: read_names(file, "end") == ["after"] or worker.process.poll() is not None)
        assert worker.process.poll() is None, worker.log
        assert [each.pid for each in parent.children()] != [child.pid]


def test_a_child_is_not_killed_for_a_result_that_was_not_read(
    file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """A task that ended in time succeeds, though the broker was away until after its hard limit."""
    from broker_kinds import Act

    limits = {"soft_limit_seconds": 1, "hard_limit_seconds": 2}
    with run_own_server(OwnServer(embedded_binary(), tmp_path, ["appendonly yes"])) as server:
        pool = {"executor": "prefork", "concurrency": 1, "prefetch": 64}
        settings = settings_for(server.url, pool=pool, queue=limits)
        with workers(settings, tmp_path) as [worker], Client(settings=settings) as client:
            [child] = psutil.Process(worker.pid).children()
            with client.batch() as batch:
                batch.send_many(Act(file=str(file), name=f"n{n}", seconds=0.02) for n in range(60))
            eventually(lambda: len(read_names(file, "start")) > 20)
            ends_at = time.monotonic() + 2.5
            server.kill()
            eventually(lambda: time.monotonic() > ends_at)
            server.start()
            assert batch.wait(60).succeeded == 60, worker.log
            assert [each.pid for each in psutil.Process(worker.pid).children()] == [child.pid], worker.log
            assert "exited with" not in worker.log
