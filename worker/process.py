"""Run one process of a pool: Celery's worker, with the options that the pools table says.

Started by the supervisor as `python -m millpond.worker.process POOL NUMBER`. Once it takes messages, it says
so on the descriptor it was given.
"""

import logging
import os
import sys
import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from socket import gethostname
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.pools import Pool
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.settings import settings

logger = logging.getLogger("millpond.worker")


def command(pool: str, number: int, *, ready_fd: int | None = None) -> list[str]:
    """Return the command that starts process `number` (from 1) of a pool."""
    ready = [] if ready_fd is None else ["--ready-fd", str(ready_fd)]
    # -P: a folder `worker` or `tasks` where the user happens to be must not be taken for ours.
    return [sys.executable, "-P", "-m", "millpond.worker.process", pool, str(number), *ready]


def options(name: str, number: int, pool: Pool) -> dict[str, Any]:
    """Return the options of Celery's worker for one process of a pool."""
    chosen: dict[str, Any] = {
        "hostname": f"{name}.{number}@{gethostname()}",
        "pool": pool.executor,
        "concurrency": pool.concurrency,
        "queues": list(pool.queues),
        "loglevel": logging.INFO,
        "quiet": True,
        "without_gossip": True,
        "without_mingle": True,
    }
    if pool.executor == "prefork" and pool.max_tasks_per_child:
        chosen["max_tasks_per_child"] = pool.max_tasks_per_child
    if pool.executor == "prefork" and pool.max_memory_per_child_mb:
        chosen["max_memory_per_child"] = pool.max_memory_per_child_mb * 1024
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the worker has been told to stop.

    The exit code is Celery's, or `EX_CONFIG` where the settings or a module they name keep it from starting.
    """
    parser = ArgumentParser(prog="millpond.worker.process")
    parser.add_argument("pool")
    parser.add_argument("number", type=int)
    parser.add_argument("--ready-fd", type=int)
    asked = parser.parse_args(argv)
    # Celery starts itself anew on SIGHUP with these; by then the descriptor is closed.
    sys.argv = ["-P", "-m", "millpond.worker.process", asked.pool, str(asked.number)]

    configured = settings()
    pool = configured.table.pools[asked.pool]
    if pool.executor == "prefork":
        # Celery then keeps what runs in a `threading.local`, not in a stack of its own that finds the calling
        # greenlet by Python code several times a task. It looks for this when it is imported. Threads must
        # not have it: Celery's tracer pushes to the stack of the thread that made it, so a body in another
        # would find no request: no id, no batch, and retries without end.
        os.environ.setdefault("USE_FAST_LOCALS", "1")
    from millpond.worker.app import make_app

    log_to_stderr(configured.log_format)  # until Celery sets its own logging up
    _warn_of_root()
    if asked.ready_fd is not None:
        _tell_when_ready(asked.ready_fd)
    try:
        app = make_app(configured.model_copy(update={"prefetch": pool.prefetch}), pools=(asked.pool,))
    except SettingsError as error:
        if error.__cause__ is not None:  # what a module of theirs raised
            traceback.print_exception(error.__cause__)
        print(f"millpond: {error}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    app.set_current()
    # Not by way of Celery's command line, whose imports are a third of the time that a worker takes to start.
    worker = app.Worker(**options(asked.pool, asked.number, pool))
    worker.start()
    sys.exit(worker.exitcode)


def _warn_of_root() -> None:
    """Say in one line what Celery says in eight, with an option that does not exist here."""
    from celery.platforms import SecurityWarning

    warnings.filterwarnings("ignore", category=SecurityWarning)
    if os.geteuid() == 0:
        logger.warning("the bodies of this worker run as root: give it a user of its own")


def _tell_when_ready(fd: int) -> None:
    from celery.signals import worker_ready

    def tell(**_: object) -> None:
        os.write(fd, b"ready\n")
        os.close(fd)

    worker_ready.connect(tell, weak=False)


if __name__ == "__main__":
    main()
