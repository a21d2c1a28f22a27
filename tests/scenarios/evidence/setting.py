"""What the runs share: a server of their own, and worker processes of the pool `default`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from millpond.tasks.settings import Settings
from millpond.worker.local.valkey import run_server
from tests.harness.one_worker import OneWorker, settings_for, workers


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a server that writes its data to disk, as the embedded one does, and yield its URL."""
    with run_server(folder / "valkey") as running:
        yield running.url


def settings(url: str, *, drain_seconds: float = 30, bound: int = 10_000, **pool: Any) -> Settings:
    """Return settings for a pool `default` with the kinds of tests/kinds."""
    return settings_for(url, pool=pool, queue={"bound": bound}, drain_seconds=drain_seconds)


__all__ = ["OneWorker", "server", "settings", "workers"]
