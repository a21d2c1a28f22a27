"""Options that an application gives `celery worker` (`app.user_options`): they have their defaults here.

Its bootsteps and its `user_preload_options` receivers get them as they do under Celery's command line.
"""

from collections.abc import Iterator
from typing import Any

from celery import Celery

from millpond.worker.user_app import SettingChange

_WHY = "`millpond worker` has no options of an application: read it from a setting or its environment"


def install(app: Celery, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a worker with those of the application, and signal its preload options."""
    if not (app.user_options["worker"] or app.user_options["preload"]):
        return chosen
    from celery.signals import user_preload_options

    if preload := _default_values(app, "preload"):
        user_preload_options.send(sender=app, app=app, options=preload)
    return {**_default_values(app, "worker"), **chosen}


def ignored_options(app: Celery) -> Iterator[SettingChange]:
    """Yield the options of the application that cannot be given here."""
    for group in ("preload", "worker"):
        for name, value in sorted(_default_values(app, group).items()):
            yield SettingChange(f"option --{name.replace('_', '-')}", "-", value, _WHY)


def _default_values(app: Celery, group: str) -> dict[str, Any]:
    """Return the default values of the options of a group, `worker` or `preload`."""
    if not (declared := app.user_options[group]):
        return {}
    from click import Command  # importing it is left to applications that have options

    return Command(group, params=list(declared)).make_context(group, [], resilient_parsing=False).params
