"""The middleware of a worker.

Loaded as it starts, told of its start and stop, asked before a handler's own tasks are sent.
"""

from typing import Any

from celery import Celery, signals

from millpond.tasks.middleware import Middleware, load, overriding
from millpond.tasks.settings import Settings

#: The middleware of tasks that handlers of this process send.
on_sending: tuple[Middleware, ...] = ()


def install(app: Celery, settings: Settings) -> None:
    """Load the middleware of the settings into an application. Raises `SettingsError`."""
    global on_sending
    app.middleware = load(settings.middleware)  # ordered, the outermost first
    on_sending = overriding(app.middleware, "on_sending")
    starting, stopping = (
        overriding(app.middleware, "on_worker_start"),
        overriding(app.middleware, "on_worker_stop"),
    )

    def start(**_: Any) -> None:
        for each in starting:
            each.on_worker_start()

    def stop(**_: Any) -> None:
        for each in reversed(stopping):
            each.on_worker_stop()

    app.middleware_signals = start, stop  # signals keep weak references
    if starting:
        signals.worker_init.connect(start)
        signals.worker_process_init.connect(start)
    if stopping:
        signals.worker_shutdown.connect(stop)
        signals.worker_process_shutdown.connect(stop)
