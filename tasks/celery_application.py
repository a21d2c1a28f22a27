"""Load the user's own Celery application, by the name that `celery -A` takes."""

from celery import Celery
from celery.app.utils import find_app

from millpond.tasks.errors import SettingsError
from millpond.tasks.module_loading import check_module


def load(name: str) -> Celery:
    """Return the application that a name means, as `celery -A` reads it. Raises `SettingsError`."""
    check_module(name.partition(":")[0].partition(".")[0], setting="app")
    try:
        return find_app(name)
    except Exception as error:
        raise unusable(name, error) from error


def unusable(name: str, error: Exception) -> SettingsError:
    """Return the error of an application that cannot be loaded."""
    return SettingsError(
        f"app names {name!r}, which is no Celery application: {type(error).__name__}: {error}"
    )


def broker_url(app: Celery) -> str | None:
    """Return the application's own broker, where Millpond's settings name none."""
    url = app.conf.broker_write_url or app.conf.broker_url
    if isinstance(url, list | tuple):
        url = ";".join(url)
    return str(url) if url and not str(url).startswith("amqp") else None
