"""The middleware of a worker: Millpond's own and that of the settings.

It is loaded and compiled as the worker starts, and called at the worker's start and stop and before a
handler's own tasks are sent.
"""

import logging
import time
from typing import Any

from celery import Celery, signals

from millpond.tasks.middleware import Hooks, hook_name, load_middleware
from millpond.tasks.process.log_middleware import LOG_MIDDLEWARE
from millpond.tasks.settings import Settings
from millpond.tasks.tracing import Tracing, hooks_by_tracing
from millpond.worker.report.event_sampling import EventSampling
from millpond.worker.report.metering import Metering

logger = logging.getLogger(__name__)

#: The pause of a prefork child that could not be prepared, before it ends.
_CHILD_PAUSE_SECONDS = 1.0

#: The hooks of tasks that handlers of this process send.
on_sending: tuple[Any, ...] = ()


def install(app: Celery, settings: Settings) -> None:
    """Load the middleware of a worker, and set its hooks as `app.hooks` and `on_sending`.

    `app.hooks` is a pair: the hooks until OpenTelemetry's SDK is imported in this process, and from then on.
    Sets `app.metering` too. Raises `SettingsError`.
    """
    global on_sending
    tracing = Tracing(settings.traces_endpoint, service="millpond-worker")
    app.metering = Metering()
    rate = settings.task_events_per_second
    sampling = (EventSampling(rate),) if rate else ()
    middleware = (*LOG_MIDDLEWARE, app.metering, *sampling, *load_middleware(settings.middleware))
    app.hooks = hooks_by_tracing(tracing, middleware)
    on_sending = app.hooks[0].on_sending
    _connect_signals(app, app.hooks[1])


def _connect_signals(app: Celery, hooks: Hooks) -> None:
    """Call the hooks when a worker process or a prefork child starts and stops."""

    def start(**_: Any) -> None:
        """Call the hooks. End the process if one fails, so that no task runs in it unprepared.

        Celery would log the error and go on. The supervisor, or for a child the pool, starts another process.
        """
        for hook in hooks.on_worker_start:
            try:
                hook()
            except Exception:
                logger.exception("%s failed, so this process ends and another is started", hook_name(hook))
                raise SystemExit(1) from None

    def start_child(**_: Any) -> None:
        """Call the hooks in a prefork child. If one fails, pause: the pool replaces a child at once."""
        try:
            start()
        except SystemExit:
            time.sleep(_CHILD_PAUSE_SECONDS)
            raise

    def stop(**_: Any) -> None:
        for hook in hooks.on_worker_stop:
            try:
                hook()
            except Exception:  # the others clean up too
                logger.exception("%s failed", hook_name(hook))

    app.middleware_signals = start, start_child, stop  # signals keep weak references
    if hooks.on_worker_start:
        signals.celeryd_after_setup.connect(start)  # logging is set up by then, and no child is forked yet
        signals.worker_process_init.connect(start_child)
    if hooks.on_worker_stop:
        signals.worker_shutdown.connect(stop)
        signals.worker_process_shutdown.connect(stop)
