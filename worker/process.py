"""Run one process of a pool: Celery's worker, with the arguments that the pools table says.

Started by the supervisor as `python -m worker.process POOL NUMBER`. Once it takes messages, it says so on the
descriptor it was given.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from tasks.pools import Pool
from tasks.settings import settings


def command(pool: str, number: int, *, ready_fd: int | None = None) -> list[str]:
    """Return the command that starts process `number` (from 1) of a pool."""
    ready = [] if ready_fd is None else ["--ready-fd", str(ready_fd)]
    # -P: a folder `worker` or `tasks` where the user happens to be must not be taken for ours.
    return [sys.executable, "-P", "-m", "worker.process", pool, str(number), *ready]


def celery_arguments(name: str, number: int, pool: Pool) -> list[str]:
    """Return the arguments of `celery worker` for one process of a pool."""
    arguments = [
        *("--quiet", "worker", "-P", pool.executor, "-c", str(pool.concurrency), "-Q", ",".join(pool.queues)),
        *("-n", f"{name}.{number}@%h", "-l", "INFO"),
        *("--without-gossip", "--without-mingle"),
    ]
    if pool.executor == "prefork" and pool.max_tasks_per_child:
        arguments += ["--max-tasks-per-child", str(pool.max_tasks_per_child)]
    if pool.executor == "prefork" and pool.max_memory_per_child_mb:
        arguments += ["--max-memory-per-child", str(pool.max_memory_per_child_mb * 1024)]
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the worker has been told to stop; the exit code is Celery's."""
    parser = ArgumentParser(prog="worker.process")
    parser.add_argument("pool")
    parser.add_argument("number", type=int)
    parser.add_argument("--ready-fd", type=int)
    asked = parser.parse_args(argv)
    # The user's own kinds lie where the command was given.
    sys.path.append(str(Path.cwd()))
    # Celery starts itself anew on SIGHUP with these; by then the descriptor is closed.
    sys.argv = ["-P", "-m", "worker.process", asked.pool, str(asked.number)]

    from worker.app import make_app

    configured = settings()
    pool = configured.table.pools[asked.pool]
    if asked.ready_fd is not None:
        _tell_when_ready(asked.ready_fd)
    app = make_app(configured.model_copy(update={"prefetch": pool.prefetch}))
    app.worker_main(celery_arguments(asked.pool, asked.number, pool))


def _tell_when_ready(fd: int) -> None:
    from celery.signals import worker_ready

    def tell(**_: object) -> None:
        os.write(fd, b"ready\n")
        os.close(fd)

    worker_ready.connect(tell, weak=False)


if __name__ == "__main__":
    main()
