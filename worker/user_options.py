"""Options that an application gives `celery worker` (`app.user_options`): they have their defaults here.

Its bootsteps and its `user_preload_options` receivers get them as they do under Celery's command line.
"""

from collections.abc import Iterator
from typing import Any

from celery import Celery

from millpond.worker.user_app import SettingChange

_WHY = "`millpond worker` has no options of an application: read it from a setting or its environment"


def install(app: Celery, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a worker and of the application, and announce its preload options."""
    if not (app.user_options["worker"] or app.user_options["preload"]):
        return chosen
    from celery.signals import user_preload_options

    if preload := _default_values(app, "preload"):
        user_preload_options.send(sender=app, app=app, options=preload)
    return {**_default_values(app, "worker"), **chosen}


def ignored_options(app: Celery) -> Iterator[SettingChange]:
    """Yield the options of the application that cannot be given here."""
    for kind in ("preload", "worker"):
        for name, value in sorted(_default_values(app, kind).items()):
            yield SettingChange(f"option --{name.replace('_', '-')}", "-", value, _WHY)


def _default_values(app: Celery, kind: str) -> dict[str, Any]:
    """Return the options of a kind as a command line without any of them gives them."""
    if not (declared := app.user_options[kind]):
        return {}
    from click import Command  # importing it is left to applications that have options

    return Command(kind, params=list(declared)).make_context(kind, [], resilient_parsing=False).params
