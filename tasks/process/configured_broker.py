"""Choose the broker of a command: the configured one, the application's, or that of a local `millpond up`."""

import os
import sys

from millpond.tasks.application_broker import ask_application
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.local_instance import find_local_instance
from millpond.tasks.settings import Settings, child_environment, settings

#: The line for people when a command uses the local instance, and the origin of such a broker.
USING_LOCAL = "no broker is configured: using the millpond up that runs here"
LOCAL_ORIGIN = "the millpond up that runs here"


def find_broker(configured: Settings, app: str | None = None) -> tuple[Settings, str | None]:
    """Return the settings with a broker, if there is one, and where it was found if they had none.

    A Celery application's own broker comes before the `millpond up` that runs here. `app` names the
    application, in place of the settings. Raises `SettingsError` if it cannot be imported, or if neither its
    broker nor a `millpond up` can be used.
    """
    app = app or configured.app
    if configured.broker_url is not None:
        return configured, None
    application = None if app is None else ask_application(app)
    if application is not None and application.is_usable:
        return application.apply_to(configured), f"{app}'s own settings"
    if local := find_local_instance():
        return local.apply_to(configured), LOCAL_ORIGIN
    return (configured if application is None else application.apply_to(configured)), None


def settings_of_application(configured: Settings) -> Settings:
    """Return the settings. If they have no broker and their Celery application a usable one, add that.

    Prints a line on stderr then. Raises `SettingsError` if the application cannot be imported.
    """
    if configured.broker_url is not None or configured.app is None:
        return configured
    application = ask_application(configured.app)
    if not application.is_usable:
        return configured
    _print_origin(f"{configured.app}'s own settings")
    return application.apply_to(configured)


def settings_with_broker(app: str | None = None) -> Settings:
    """Return the settings. If they have no broker, add that of `find_broker` and print a line on stderr."""
    configured, origin = find_broker(settings(), app)
    if origin is not None:
        _print_origin(origin)
    return configured


def _print_origin(origin: str) -> None:
    line = USING_LOCAL if origin == LOCAL_ORIGIN else f"using the broker of {origin}"
    print(line, file=sys.stderr, flush=True)


def apply_settings_with_broker(app: str | None = None) -> Settings:
    """Return `settings_with_broker`, and make them the settings of this process and of its children.

    This writes to the environment and clears the cache of `settings`.
    """
    configured = settings_with_broker(app)
    if configured is not settings():
        os.environ.update(child_environment(configured))
        settings.cache_clear()
    return settings()


def require_broker_url(settings: Settings) -> str:
    """Return the broker's URL in these settings. Raises `SettingsError` if there is none."""
    if settings.broker_url:
        return settings.broker_url
    if find_local_instance():
        raise SettingsError(
            "no broker is configured: set MILLPOND_BROKER_URL to the URL that the running `millpond up` "
            "has printed"
        )
    raise SettingsError(
        "no broker is configured: set MILLPOND_BROKER_URL, as in redis://host:6379/0, "
        "or start one here with `millpond up`"
    )
