"""Run a scheduler in this process until SIGTERM or SIGINT.

`millpond scheduler` calls it. `millpond up` starts it as `python -m millpond.producer.scheduler_process`.
"""

import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence

from millpond.broker.cluster import check_cluster_at_start
from millpond.producer.client import Client
from millpond.producer.scheduler import Scheduled, Scheduler
from millpond.tasks.errors import MillpondError, SettingsError
from millpond.tasks.module_loading import import_modules
from millpond.tasks.process.application_record import record_application
from millpond.tasks.process.configured_broker import require_broker_url
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.process.process_namespace import namespace_of
from millpond.tasks.settings import Settings
from millpond.tasks.settings import settings as read_settings


def run_scheduler(
    settings: Settings, *, app: str | None = None, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Send the scheduled tasks of the settings, and those of a Celery application, until SIGTERM or SIGINT.

    `app` names the application. `on_ready` is called once, when the broker has replied. Raises
    `SettingsError` if there is no schedule, or if the task of a schedule cannot be sent.
    """
    table: dict[str, Scheduled] = dict(settings.schedule)
    if app is not None:
        table |= _load_application_schedules(app, table)
    if not table:
        raise SettingsError(
            "there is no schedule: add a [schedule.NAME] table with kind and every to millpond.toml, or name "
            "a Celery application that has a beat_schedule: --app proj"
        )
    import_modules(settings.gateway.contracts, setting="gateway.contracts")
    import_modules(settings.kinds)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    broker_url = require_broker_url(settings)
    check_cluster_at_start(broker_url, **settings.broker_options)
    with Client(settings=settings) as client:
        namespace = namespace_of(broker_url, settings.key_prefix)
        record_application(app or settings.app, namespace)
        Scheduler(client, table, on_ready, namespace).run(stop)


def _load_application_schedules(app: str, toml_schedules: Mapping[str, Scheduled]) -> dict[str, Scheduled]:
    """Return the schedules of a Celery application's `beat_schedule`, by name.

    Raises `SettingsError` if one of the names is among the schedules of millpond.toml, too.
    """
    from millpond.producer.beat_schedule import read_entries
    from millpond.tasks.celery_application import load_app

    schedules: dict[str, Scheduled] = dict(read_entries(load_app(app)))
    if both := toml_schedules.keys() & schedules.keys():
        raise SettingsError(f"schedule {min(both)!r} is in millpond.toml and in beat_schedule: rename one")
    return schedules


def main(argv: Sequence[str] | None = None) -> None:
    """Run a scheduler as a child process. Once the broker has replied, write a line to `--ready-fd`."""
    parser = ArgumentParser(prog="millpond.producer.scheduler_process")
    parser.add_argument("--ready-fd", type=int, required=True)
    arguments = parser.parse_args(argv)
    log_to_stderr(read_settings().log_format)

    def report_ready() -> None:
        os.write(arguments.ready_fd, b"ready\n")
        os.close(arguments.ready_fd)

    try:
        run_scheduler(read_settings(), on_ready=report_ready)
    except MillpondError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
