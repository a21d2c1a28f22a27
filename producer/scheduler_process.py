"""Run a scheduler as a process of its own, until SIGTERM or SIGINT.

Started as `millpond scheduler`, or by the embedded set-up as `python -m millpond.producer.scheduler_process`.
"""

import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

from millpond.producer.client import Client
from millpond.producer.scheduler import Scheduler
from millpond.tasks.errors import MillpondError, SettingsError
from millpond.tasks.module_loading import declare
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.settings import Settings, settings


def schedule(configured: Settings, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Send the periodic tasks of the settings until told to stop.

    Raises `SettingsError` where there are none, or one cannot be sent.
    """
    if not configured.schedule:
        raise SettingsError(
            "there are no periodic tasks: add a [schedule.NAME] table with kind and every to millpond.toml"
        )
    declare(configured.gateway.contracts, setting="gateway.contracts")
    declare(configured.kinds)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Client(settings=configured) as client:
        Scheduler(client, configured.schedule, on_ready).run(stop)


def main(argv: Sequence[str] | None = None) -> None:
    """Schedule as a child process, which says on the descriptor it was given that it is ready."""
    parser = ArgumentParser(prog="millpond.producer.scheduler_process")
    parser.add_argument("--ready-fd", type=int, required=True)
    asked = parser.parse_args(argv)
    log_to_stderr(settings().log_format)

    def tell() -> None:
        os.write(asked.ready_fd, b"ready\n")
        os.close(asked.ready_fd)

    try:
        schedule(settings(), on_ready=tell)
    except MillpondError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
