"""Load the user's own Celery application, by the name that `celery -A` takes."""

import ssl
from typing import Any
from urllib.parse import urlencode

from celery import Celery
from celery.app.utils import find_app

from millpond.broker.url import BrokerURL
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.module_loading import check_module


def load_app(name: str) -> Celery:
    """Return the application that a name means, as `celery -A` reads it. Raises `SettingsError`."""
    check_module(name.partition(":")[0].partition(".")[0], setting="app")
    try:
        app = find_app(name)
    except Exception as error:
        raise load_error(name, error) from error
    if not isinstance(app, Celery):
        raise load_error(name, None)
    return app


def task_names(name: str) -> frozenset[str]:
    """Return the names of the tasks of an application, Celery's own left out. Raises `SettingsError`."""
    app = load_app(name)
    try:
        app.loader.import_default_modules()
        return frozenset(each for each in app.tasks if not each.startswith("celery."))
    except Exception as error:
        raise load_error(name, error) from error


def load_error(name: str, error: Exception | None) -> SettingsError:
    """Return the error for an application that cannot be loaded, or, without `error`, for another object."""
    module = name.partition(":")[0]
    # Celery looks for a variable first and for a module last, and reports its last attempt.
    is_missing = isinstance(error, AttributeError) and getattr(error.obj, "__name__", None) == module
    if error is None or is_missing or (isinstance(error, ModuleNotFoundError) and error.name == name):
        reason = f"name the variable that holds it, as in {module}:app"
    else:
        reason = f"{type(error).__name__}: {error}"
    return SettingsError(f"app names {name!r}, which is no Celery application: {reason}")


def broker_url(app: Celery) -> str | None:
    """Return the application's own broker if Millpond's settings name none."""
    url = _join_urls(app.conf.broker_write_url or app.conf.broker_url)
    return None if not url or url.startswith("amqp") else add_tls_options(app, url)


def add_tls_options(app: Celery, written: Any) -> str:
    """Return a URL of the application's settings with the options of its `broker_use_ssl`."""
    url, tls = _join_urls(written), app.conf.broker_use_ssl
    if not tls or "ssl_" in url:
        return url
    options = {"ssl": "true", **(tls if isinstance(tls, dict) else {})}
    written = urlencode({name: _spell_option(value) for name, value in options.items()})
    return f"{url}{'&' if '?' in url else '?'}{written}"


def parse_broker_url(url: Any) -> BrokerURL | None:
    """Return a URL of the application's settings as Millpond reads it.

    Return None if it is no Redis or Valkey.
    """
    try:
        return BrokerURL.parse(_join_urls(url))
    except BadBrokerUrl:
        return None


def _join_urls(url: Any) -> str:
    """Return one URL of a setting that may list several, as Sentinel's does."""
    return ";".join(url) if isinstance(url, list | tuple) else str(url or "")


def _spell_option(value: Any) -> str:
    """Return an option of `broker_use_ssl` as it is written in a URL."""
    return value.name if isinstance(value, ssl.VerifyMode) else str(value)
