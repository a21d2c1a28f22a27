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
from millpond.tasks.settings import Settings
from millpond.tasks.settings import settings as load_settings
from millpond.worker import middleware, shutdown, startup_checks, unknown_kinds, user_app, user_options
from millpond.worker.celery import inspection
from millpond.worker.celery.handler_task import register_handler
from millpond.worker.report import health_reporter, heartbeat, logs, slot_times
from millpond.worker.supervise import process_tree

logger = logging.getLogger(__name__)

#: The modules of the handlers that ship with Millpond. A module whose extra is not installed is left out.
SHIPPED = ("millpond.tasks.email.task", "millpond.tasks.files.task", "millpond.tasks.squares.task")


def make_app(settings: Settings, *, pools: tuple[str, ...] = (), quiet: bool = False) -> Celery:
    """Return an application that knows every handler of the shipped kinds and of the `kinds` of the settings.

    Its workers serve `pools`, or if that is empty the pools that serve their queues. `quiet` leaves out the
    log lines of a start. Raises `SettingsError` if a module of `kinds`, or the user's application, cannot be
    imported.
    """
    if settings.app is None:
        app = celery_app(settings)
    else:
        app = _load_user_app(settings.app, settings, pools, quiet=quiet)
    install_parts(app, settings, InFlightMessages(prefetch=settings.prefetch, pools=pools))
    load_handlers(settings)
    for handler in handlers_by_kind().values():
        register_handler(app, handler, settings.table)
    return app


def _load_user_app(app_name: str, settings: Settings, pools: tuple[str, ...], *, quiet: bool) -> Celery:
    """Return the user's own application with the changes that Millpond needs.

    Unless `quiet`, its workers check its result backend and log each change when they start.
    """
    app = user_app.load_app(app_name)
    changes = user_app.configure_app(app, settings, pools)

    def on_set_up(**_: Any) -> None:
        """Check the result backend, and log the changes to the application."""
        user_app.check_result_backend(app)  # by now Django is set up, whose models a backend may use
        if text := user_app.format_changes(
            [
                *changes,
                *user_options.option_changes(app),
                *user_app.unsafe_task_options(app),
                *(user_app.limits_not_kept(app) if settings.table.are_threads(pools) else ()),
            ]
        ):
            logger.warning("%s", text)

    if not quiet:
        app.on_set_up = on_set_up  # signals keep weak references
        signals.celeryd_after_setup.connect(on_set_up)
    return app


def install_parts(app: Celery, settings: Settings, in_flight: InFlightMessages) -> None:
    """Make this application's workers consume, settle and drain as Millpond does."""
    middleware.install(app, settings)
    app.conf.worker_consumer = "millpond.worker.celery.consumer:PondConsumer"
    app.in_flight = in_flight
    shutdown.install(app, settings, in_flight)
    child_watch.install(
        app,
        prepare=process_tree.become_subreaper,
        kill=process_tree.kill_with_descendants,
        spawned=(set_up_spawned_child, (in_flight.pools,)),
    )
    startup_checks.install(app, settings)
    logs.install(app, settings)
    unknown_kinds.install(app, settings)
    heartbeat.install(app, settings, in_flight)
    health_reporter.install(app, settings, in_flight)
    slot_times.install(app, samples=settings.sample_slots)
    inspection.install()


def set_up_spawned_child(pools: tuple[str, ...], hostname: str) -> None:
    """Set up a spawned prefork child, which inherits nothing: its application, then Celery's own set-up."""
    from celery.app import base
    from celery.concurrency.prefork import process_initializer

    base.USING_EXECV = False  # tasks are bound to the application that declares them, as in the parent
    app = make_app(load_settings(), pools=pools, quiet=True)
    app.set_current()
    app.set_default()
    process_initializer(app, hostname)


def load_handlers(settings: Settings) -> None:
    """Import the modules of all kinds, which declare their handlers. Raises `SettingsError`."""
    for module in SHIPPED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            if (missing.name or "").split(".")[0] == "millpond":  # not a package of an extra
                raise
            modules_left_out[module] = missing.name or ""
    import_modules(settings.kinds)


def __getattr__(name: str) -> Any:
    """Make the application when `app` or `celery` is first read."""
    if name not in ("app", "celery"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        application = make_app(load_settings())
    except SettingsError as error:
        if Path(sys.argv[0]).name == "celery":  # its command line would print a traceback
            raise SystemExit(f"celery: {error}") from None
        raise
    globals()["app"] = globals()["celery"] = application
    return application
