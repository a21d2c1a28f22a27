"""Assemble the worker's Celery application: `celery -A millpond worker -Q email`.

It is made on first use, so that importing this module reads no environment.
"""

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

from celery import Celery, signals

from millpond.broker.celery import child_watch
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.tasks.app import celery_app
from millpond.tasks.errors import SettingsError
from millpond.tasks.handlers import handlers_by_kind, modules_left_out
from millpond.tasks.module_loading import import_modules
from millpond.tasks.settings import Settings, settings
from millpond.worker import middleware, shutdown, startup_checks, unknown_kinds, user_app, user_options
from millpond.worker.celery import inspection
from millpond.worker.celery.handler_task import register_handler
from millpond.worker.report import health_reporter, heartbeat, logs, slot_times
from millpond.worker.supervise import process_tree

logger = logging.getLogger(__name__)

#: The modules of the handlers that ship with Millpond. A module whose extra is not installed is left out.
SHIPPED = ("millpond.tasks.email.task", "millpond.tasks.files.task", "millpond.tasks.squares.task")


def make_app(configured: Settings, *, pools: tuple[str, ...] = (), quiet: bool = False) -> Celery:
    """Return an application that knows every handler of the shipped and of the configured kinds.

    Its workers serve `pools`, or if that is empty the pools that own their queues. `quiet` leaves out the log
    lines of a start. Raises `SettingsError` if a module of `kinds` cannot be imported.
    """
    if configured.app is None:
        app = celery_app(configured)
    else:
        app = _load_user_app(configured.app, configured, pools, quiet=quiet)
    install_parts(app, configured, InFlightMessages(prefetch=configured.prefetch, pools=pools))
    load_handlers(configured)
    for handler in handlers_by_kind().values():
        register_handler(app, handler, configured.table)
    return app


def _load_user_app(name: str, configured: Settings, pools: tuple[str, ...], *, quiet: bool) -> Celery:
    """Return the user's own application with the changes that Millpond needs.

    Its workers log each change when they start, unless `quiet`.
    """
    app = user_app.load_app(name)
    changes = user_app.configure_app(app, configured, pools)

    def log_changes(**_: Any) -> None:
        """Check the result backend when a worker starts, and log the changes to the application."""
        user_app.check_result_backend(app)  # by now Django is set up, whose models a backend may use
        if text := user_app.format_changes(
            [*changes, *user_options.option_changes(app), *user_app.unsafe_task_options(app)]
        ):
            logger.warning("%s", text)

    if not quiet:
        app.log_changes = log_changes  # signals keep weak references
        signals.celeryd_after_setup.connect(log_changes)
    return app


def install_parts(app: Celery, configured: Settings, in_flight: InFlightMessages) -> None:
    """Make this application's workers consume, settle and drain as Millpond does."""
    middleware.install(app, configured)
    app.conf.worker_consumer = "millpond.worker.celery.consumer:PondConsumer"
    app.in_flight = in_flight
    shutdown.install(app, configured, in_flight)
    child_watch.install(
        app,
        prepare=process_tree.become_subreaper,
        kill=process_tree.kill_with_descendants,
        spawned=(set_up_spawned_child, (in_flight.pools,)),
    )
    startup_checks.install(app, configured)
    logs.install(app, configured)
    unknown_kinds.install(app, configured)
    heartbeat.install(app, configured, in_flight)
    health_reporter.install(app, configured, in_flight)
    slot_times.install(app, samples=configured.sample_slots)
    inspection.install()


def set_up_spawned_child(pools: tuple[str, ...], hostname: str) -> None:
    """Set up a spawned prefork child, which inherits nothing: its application, then Celery's own set-up."""
    from celery.app import base
    from celery.concurrency.prefork import process_initializer

    base.USING_EXECV = False  # tasks are bound to the application that declares them, as in the parent
    app = make_app(settings(), pools=pools, quiet=True)
    app.set_current()
    app.set_default()
    process_initializer(app, hostname)


def load_handlers(configured: Settings) -> None:
    """Import the modules of all kinds, which then declare their handlers."""
    for module in SHIPPED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            if (missing.name or "").split(".")[0] == "millpond":
                raise
            modules_left_out[module] = missing.name or ""
    import_modules(configured.kinds)


def __getattr__(name: str) -> Any:
    """Make the application when `app` or `celery` is first read."""
    if name not in ("app", "celery"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        application = make_app(settings())
    except SettingsError as error:
        if Path(sys.argv[0]).name == "celery":  # its command line would print a traceback
            raise SystemExit(f"celery: {error}") from None
        raise
    globals()["app"] = globals()["celery"] = application
    return application
