"""Load the user's own Celery application, by the name that `celery -A` takes, and read its broker URL."""

import os
import ssl
import sys
from typing import Any
from urllib.parse import urlencode

from celery import Celery
from celery.app.utils import find_app

from millpond.broker.url import BrokerURL
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.module_loading import check_module

#: A name of an application in its full form.
_EXAMPLE = "shop.celery:app"


def load_app(app_name: str) -> Celery:
    """Import and return the application of a name, which `celery -A` would take. Raises `SettingsError`."""
    check_module(app_name.partition(":")[0].partition(".")[0], setting="app")
    try:
        app = find_app(app_name)
    except Exception as error:
        raise application_error(app_name, error) from error
    if not isinstance(app, Celery):
        raise application_error(app_name, None)
    return app


def load_task_names(app_name: str) -> frozenset[str]:
    """Load an application and return the names of its tasks, without Celery's own. Raises `SettingsError`."""
    app = load_app(app_name)
    try:
        app.loader.import_default_modules()
        return frozenset(task for task in app.tasks if not task.startswith("celery."))
    except Exception as error:
        raise application_error(app_name, error) from error


def application_error(app_name: str, error: Exception | None) -> SettingsError:
    """Return the error for an application that raised `error` when it was loaded.

    `error` is None if the name exists and is not that of an application.
    """
    subject, (module, colon, _variable) = f"app names {app_name!r}", app_name.partition(":")
    reason: BaseException | None = error
    if isinstance(error, ModuleNotFoundError) and error.name == app_name:
        if not colon:
            return SettingsError(f"{subject}, and no module has this name: correct it, as in {_EXAMPLE}")
        reason = error.__context__  # Celery looks for a variable first and for a module last
    is_missing = isinstance(reason, AttributeError) and getattr(reason.obj, "__name__", None) == module
    if reason is None or is_missing:
        file = getattr(sys.modules.get(module), "__file__", None)
        return SettingsError(
            f"{subject}, which is no Celery application: name the variable that holds it, as in {module}:app"
            + (f" (the module was read from {file})" if file else "")
        )
    return SettingsError(f"{subject}, which cannot be loaded: {type(reason).__name__}: {reason}")


def read_broker(app_name: str) -> tuple[str, str]:
    """Load an application and return the broker URL in its own settings and the prefix of its keys.

    Either is "" if there is none. The URL has the TLS options. Raises `SettingsError`.
    """
    app = load_app(app_name)
    try:
        prefix = (app.conf.broker_transport_options or {}).get("global_keyprefix") or ""
        return broker_url(app), prefix
    except Exception as error:  # the first read loads the settings, in whichever form they are
        raise application_error(app_name, error) from error


def broker_url(app: Celery) -> str:
    """Return the broker URL in the application's own settings, with its TLS options, or "" without one."""
    url = _join_urls(app.conf.broker_write_url or app.conf.broker_url)
    return add_tls_options(app, url) if url else ""


def add_tls_options(app: Celery, setting: Any) -> str:
    """Return the URL of a setting of the application, with the options of its `broker_use_ssl`.

    A URL that has TLS options itself is returned without further ones.
    """
    url, tls = _join_urls(setting), app.conf.broker_use_ssl
    if not tls or "ssl_" in url.partition("?")[2]:
        return url
    options = {"ssl": "true", **(tls if isinstance(tls, dict) else {})}
    query = urlencode({name: _spell_option(value) for name, value in options.items()})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def parse_broker_url(setting: Any) -> BrokerURL | None:
    """Return the parsed URL of a setting of the application. Return None if Millpond cannot use that URL."""
    try:
        return BrokerURL.parse(_join_urls(setting))
    except BadBrokerUrl:
        return None


def _join_urls(setting: Any) -> str:
    """Return a setting as one URL. A list of URLs, as Sentinel has, is joined with semicolons."""
    return ";".join(setting) if isinstance(setting, list | tuple) else str(setting or "")


def _spell_option(value: Any) -> str:
    """Return an option of `broker_use_ssl` as it is written in a URL."""
    return value.name if isinstance(value, ssl.VerifyMode) else str(value)


def main() -> None:
    """Print the broker URL of the application that the first argument names, and the prefix of its keys.

    Exit with 1 and an error on stderr if it cannot be loaded. `application_broker.py` runs this in a process
    of its own.
    """
    try:
        url, prefix = read_broker(sys.argv[1])
    except SettingsError as error:
        sys.exit(f"millpond: {error}")
    sys.stdout.write(f"\nbroker {url}\nprefix {prefix}\n")
    sys.stdout.flush()
    os._exit(0)  # the application's threads are not waited for, and its exit hooks print nothing


if __name__ == "__main__":
    main()
