"""Set up a prefork child that was spawned and inherits nothing: it makes its application anew."""

from celery.app import base
from celery.concurrency.prefork import process_initializer

from millpond.tasks.settings import settings


def initialize(pools: tuple[str, ...], hostname: str) -> None:
    """Make the application as the worker made it, then initialize the child as Celery does."""
    from millpond.worker.app import make_app

    base.USING_EXECV = False  # tasks are bound to the application that declares them, as in the parent
    app = make_app(settings(), pools=pools, quiet=True)
    app.set_current()
    app.set_default()
    process_initializer(app, hostname)
