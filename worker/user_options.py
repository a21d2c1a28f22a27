"""Options that an application adds to `celery worker` (`app.user_options`). Here they have their defaults.

The application's bootsteps and receivers of `user_preload_options` get the defaults. Under Celery's command
line they get the values that are given there.
"""

from collections.abc import Iterator
from typing import Any

from celery import Celery

from millpond.tasks.errors import SettingsError
from millpond.worker.user_app import SettingChange

_WHY = "`millpond worker` has no options of an application: read it from a setting or its environment"


def add_default_options(app: Celery, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a worker with the defaults of the application's own options.

    Sends the signal `user_preload_options` if the application has preload options. Raises `SettingsError` for
    an option that must be given.
    """
    if not (app.user_options["worker"] or app.user_options["preload"]):
        return options
    from celery.signals import user_preload_options

    if preload := _default_values(app, "preload"):
        user_preload_options.send(sender=app, app=app, options=preload)
    return {**_default_values(app, "worker"), **options}


def option_changes(app: Celery) -> Iterator[SettingChange]:
    """Yield a change for each option of the application, because it always has its default here."""
    for group in ("preload", "worker"):
        for name, value in sorted(_default_values(app, group).items()):
            yield SettingChange(f"option --{name.replace('_', '-')}", "-", value, _WHY)


def _default_values(app: Celery, group: str) -> dict[str, Any]:
    """Return the default values of the application's options of a group, `worker` or `preload`.

    Raises `SettingsError` for an option that must be given.
    """
    if not (options := app.user_options[group]):
        return {}
    from click import Command, UsageError  # imported only for applications that have options

    try:
        return Command(group, params=list(options)).make_context(group, [], resilient_parsing=False).params
    except UsageError as error:
        raise SettingsError(f"{error.format_message()} {_WHY}") from None
