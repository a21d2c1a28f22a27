"""The surroundings of a pool in a bottleneck: services, databases, a mail server, other load, a quota."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.harness.mail_sink import Sink, mail_sink
from tests.harness.permits import Service, service
from tests.harness.postgres import Postgres, postgres
from tests.harness.tcp_proxy import proxy
from tests.scenarios.bottlenecks.case import Scene

Around = Callable[[Path], AbstractContextManager[Any]]

_STOCK = (
    "create table stock (id int primary key, n int)",
    "insert into stock select id, 0 from generate_series(0, 1000) id",
    "create role shop login connection limit 2",
)


def asked(permits: int, seconds: float, item_seconds: float = 0.0) -> Around:
    """Return a service of so many permits."""

    @contextmanager
    def around(_folder: Path) -> Iterator[Service]:
        with service(permits, seconds, item_seconds) as running:
            yield running

    return around


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """Make a database file."""
    import sqlite3

    path = folder / "shop.db"
    with sqlite3.connect(path) as made:
        made.execute("create table orders (n)")
    made.close()
    yield str(path)


@contextmanager
def stock(folder: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL server with a table, and a user that may have two connections."""
    with postgres(folder, statements=_STOCK) as running:
        yield running


@contextmanager
def far_stock(folder: Path) -> Iterator[Postgres]:
    """Run such a server behind a network that takes four milliseconds there and back."""
    with stock(folder) as near, proxy(near.port, 0.002) as between:
        yield Postgres(between.port)


class _Slow(Sink):
    """Takes mails two at a time, and takes its time for each."""

    gate: asyncio.Semaphore

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        async with self.gate:
            await asyncio.sleep(0.04)
        return "250 OK"


@contextmanager
def mails(_folder: Path) -> Iterator[Sink]:
    """Run a mail server that takes two mails at a time."""
    with mail_sink() as sink:
        sink.__class__ = _Slow
        sink.gate = asyncio.Semaphore(2)  # type: ignore[attr-defined]
        yield sink


@contextmanager
def crowded(_folder: Path) -> Iterator[None]:
    """Compute on every processor, four times over, beside the pool."""
    burn = "while True: sum(range(1000))"
    others = [subprocess.Popen([sys.executable, "-S", "-c", burn]) for _ in range(4 * (os.cpu_count() or 2))]
    try:
        yield None
    finally:
        for each in others:
            each.kill()
            each.wait()


def quota(share: float) -> Callable[[Scene], None]:
    """Return the onset that puts the workers into a control group with a share of one processor."""

    def onset(scene: Scene) -> None:
        group = _group(share)
        for worker in scene.workers:
            for process in worker._family():
                for thread in process.threads():
                    with suppress(ProcessLookupError):
                        (group / ("cgroup.threads" if _V2 else "tasks")).write_text(str(thread.id))

    return onset


_V1, _ROOT = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_V2 = (_ROOT / "cgroup.controllers").exists()


def quota_is_possible() -> bool:
    """True if this user may make control groups."""
    return os.access(_ROOT if _V2 else _V1, os.W_OK) and (_V2 or _V1.exists())


def _group(share: float) -> Path:
    group = (_ROOT if _V2 else _V1) / f"millpond-bottleneck-{os.getpid()}"
    with suppress(FileExistsError):
        group.mkdir()
    if _V2:
        (group / "cpu.max").write_text(f"{int(share * 100_000)} 100000")
    else:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(str(int(share * 100_000)))
    return group


def freeze_the_last(scene: Scene) -> None:
    """Freeze the last worker process."""
    scene.workers[-1].freeze()


def kill_all(scene: Scene) -> None:
    """Kill all worker processes."""
    for worker in scene.workers:
        worker.kill()


def pause(scene: Scene) -> None:
    """Pause the queue."""
    from millpond.broker import limits

    limits.change_limits(scene.store, "default", paused=True)


def drain(scene: Scene) -> None:
    """Drain the pool."""
    from millpond.broker.control import drain

    drain.drain_pool(scene.store, "default")


def slower(seconds: float) -> Callable[[Scene], None]:
    """Return the onset that makes the service slower."""

    def onset(scene: Scene) -> None:
        scene.given.seconds = seconds

    return onset
