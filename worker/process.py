"""One process of a pool: Celery's worker with the options of the pools table.

The supervisor starts it as `python -m millpond.worker.process POOL NUMBER`. Once it takes messages, it writes
a line to the descriptor given as `--ready-fd`.
"""

import gc
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
from millpond.tasks.process.logs import log_own_to_stderr, log_to_stderr
from millpond.tasks.settings import Settings
from millpond.tasks.settings import settings as load_settings

logger = logging.getLogger("millpond.worker")


def process_command(pool: str, number: int, ready_fd: int | None = None) -> list[str]:
    """Return the command that starts process `number` (from 1) of a pool.

    The process writes a line to the descriptor `ready_fd` once it takes messages.
    """
    ready = [] if ready_fd is None else ["--ready-fd", str(ready_fd)]
    # -P: modules in the current folder of the user must not shadow installed ones.
    return [sys.executable, "-P", "-m", "millpond.worker.process", pool, str(number), *ready]


def worker_options(pool_name: str, number: int, pool: Pool) -> dict[str, Any]:
    """Return the options of Celery's worker for process `number` of a pool."""
    options: dict[str, Any] = {
        "hostname": f"{pool_name}.{number}@{gethostname()}",
        "pool": pool.executor,
        "concurrency": pool.concurrency,
        "queues": list(pool.queues),
        "loglevel": logging.INFO,
        "quiet": True,
        "without_gossip": True,
        "without_mingle": True,
    }
    if pool.executor == "prefork" and pool.max_tasks_per_child:
        options["max_tasks_per_child"] = pool.max_tasks_per_child
    if pool.executor == "prefork" and pool.max_memory_per_child_mb:
        options["max_memory_per_child"] = pool.max_memory_per_child_mb * 1024
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Run the worker until it is stopped.

    The exit code is Celery's, or `EX_CONFIG` if the settings, or a module that they name, prevent the start.
    """
    parser = ArgumentParser(prog="millpond.worker.process")
    parser.add_argument("pool")
    parser.add_argument("number", type=int)
    parser.add_argument("--ready-fd", type=int)
    arguments = parser.parse_args(argv)
    # Celery restarts itself on SIGHUP with these arguments, without `--ready-fd`: the descriptor is closed by
    # then.
    sys.argv = ["-P", "-m", "millpond.worker.process", arguments.pool, str(arguments.number)]
    settings = load_settings()
    if settings.table.pools[arguments.pool].executor == "prefork":
        # With this, Celery keeps the current task in a `threading.local` instead of a stack that looks up the
        # greenlet in Python several times a task. Celery reads it on import. A pool of threads must not set
        # it: Celery's tracer pushes to the stack of the thread that created it, so a handler in another
        # thread would find no request: no id, no batch, and retries without end.
        os.environ.setdefault("USE_FAST_LOCALS", "1")
    # Until Celery configures logging, or the user's application, which may do that as it is imported.
    (log_own_to_stderr if settings.app else log_to_stderr)(settings.log_format)
    _warn_if_root()
    if arguments.ready_fd is not None:
        _announce_readiness(arguments.ready_fd)
    worker = make_worker(settings, arguments.pool, arguments.number)
    worker.start()
    gc.freeze()  # the interpreter would search all objects for cycles several times as it ends
    sys.exit(worker.exitcode)


def make_worker(settings: Settings, pool_name: str, number: int) -> Any:
    """Return Celery's worker for process `number` of a pool.

    If the settings, or a module that they name, prevent it, print the reason and exit with `EX_CONFIG`.
    """
    from celery.exceptions import ImproperlyConfigured, SecurityError

    from millpond.worker import user_app, user_options
    from millpond.worker.app import make_app

    pool = settings.table.pools[pool_name]
    try:
        app = make_app(settings.model_copy(update={"prefetch": pool.prefetch}), pools=(pool_name,))
        app.set_current()
        if settings.app is not None:
            user_app.import_task_modules(app, settings.app)
    except SettingsError as error:
        if error.__cause__ is not None:  # the error of a module that the settings name
            traceback.print_exception(error.__cause__)
        print(f"millpond: {error}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    # Not through Celery's command line: its imports take a third of a worker's start.
    try:
        return app.Worker(**user_options.add_default_options(app, worker_options(pool_name, number, pool)))
    except (ImproperlyConfigured, SecurityError, SettingsError) as error:
        print(f"millpond: {' '.join(str(error).split())}", file=sys.stderr)
    except Exception as error:  # of the application: its queues, a bootstep, a class that a setting names
        traceback.print_exception(error)
        text = " ".join(str(error).split())
        print(f"millpond: the worker cannot be made: {type(error).__name__}: {text}", file=sys.stderr)
    sys.exit(os.EX_CONFIG)


def _warn_if_root() -> None:
    """Log a warning if this process runs as root, instead of Celery's warning.

    Celery's has eight lines and names an option that Millpond does not have.
    """
    from celery.platforms import SecurityWarning

    warnings.filterwarnings("ignore", category=SecurityWarning)
    if os.geteuid() == 0:
        logger.warning("this worker runs task handlers as root: start it as a user of its own")


def _announce_readiness(fd: int) -> None:
    """Write a line to a descriptor and close it once the worker takes messages."""
    from celery.signals import worker_ready

    def write(**_: object) -> None:
        os.write(fd, b"ready\n")
        os.close(fd)

    worker_ready.connect(write, weak=False)


if __name__ == "__main__":
    main()
