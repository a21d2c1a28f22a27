"""Checks of this machine: the middleware, the extras in use, the mail server, the storage roots."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from millpond.monitor.doctor.finding import Finding, fail, ok, warn
from millpond.tasks import extras
from millpond.tasks.errors import MillpondError, SettingsError
from millpond.tasks.middleware import load_middleware
from millpond.tasks.settings import Settings, Smtp

#: The longest time-out of the check of the mail server.
MAIL_TIMEOUT_SECONDS = 5.0


def check_extras(settings: Settings) -> Iterator[Finding]:
    """Yield a finding on the extras that are installed, and one for each extra that lacks packages.

    Checked are the extras that the settings, the queues or a service need.
    """
    schemes = {urlsplit(root).scheme for root in settings.files.roots}
    needs = {
        **dict.fromkeys(extras.extras_of_queues(settings.table.queues), "the handlers of its queue need"),
        "flower": "millpond flower needs",
        "gateway": "millpond gateway needs",
        **({"embedded": "millpond up needs"} if settings.broker_url is None else {}),
        **({"traces": "traces_endpoint needs"} if settings.traces_endpoint else {}),
        **({"s3": "the roots at s3:// need"} if "s3" in schemes else {}),
    }
    missing = extras.missing_packages(*needs)
    if installed := [name for name in needs if name not in missing]:
        yield ok("extras", f"installed here: {', '.join(sorted(installed))}")
    for name, packages in missing.items():
        line = f"{name} lacks {', '.join(packages)}, which {needs[name]}"
        warn_or_fail = fail if name in ("traces", "s3") else warn
        yield warn_or_fail("extras", line, f"where it is used: {extras.install_command([name])}")


def check_middleware(settings: Settings) -> Iterator[Finding]:
    """Yield a finding on the middleware that the settings name, and one for each that cannot be loaded.

    That of installed packages, which workers load too, is only a finding if it cannot be loaded.
    """
    loaded, remedy = [], "correct middleware, or the module: no worker starts with it"
    for name in dict.fromkeys(settings.middleware):
        try:
            load_middleware([name])
            loaded.append(name)
        except SettingsError as error:
            yield fail("middleware", str(error), remedy)
    if len(loaded) == len(set(settings.middleware)):
        try:
            load_middleware(settings.middleware)
        except SettingsError as error:
            yield fail("middleware", str(error), remedy)
    if loaded:
        yield ok("middleware", f"loaded: {', '.join(loaded)}")


def check_mail(settings: Settings) -> Finding:
    """Return the finding on the mail server: can a session be opened with the settings' security and login?

    A failure is only a warning if the settings name no server.
    """
    from millpond.tasks.email.smtp_session import connect

    smtp = settings.smtp
    address, is_default = f"{smtp.host}:{smtp.port}", (smtp.host, smtp.port) == (Smtp().host, Smtp().port)
    try:
        client = connect(
            smtp.model_copy(update={"timeout_seconds": min(smtp.timeout_seconds, MAIL_TIMEOUT_SECONDS)})
        )
    except MillpondError as error:
        warn_or_fail = warn if is_default else fail
        remedy = "name yours in [smtp] of millpond.toml" if is_default else "see: millpond config smtp"
        return warn_or_fail("mail", str(error), f"{remedy}, or start it")
    client.close()
    login = ", and takes the login" if smtp.username else ""
    return ok("mail", f"{address} answers, security {smtp.security}{login}")


def check_templates(settings: Settings) -> Iterator[Finding]:
    """Yield a finding if the folder of templates is missing."""
    folder = settings.smtp.templates
    if folder is not None and not folder.is_dir():
        yield fail(
            "mail", f"smtp.templates names {folder}, which is not a folder", "create it, or unset the setting"
        )


def check_storage(settings: Settings) -> Iterator[Finding]:
    """Yield a finding on each storage root: can it be used from here?"""
    if not settings.files.roots:
        line = "no root is set here: workers with these settings refuse file tasks"
        yield warn("storage", line, "set files.roots, as in /srv/files")
    for root in settings.files.roots:
        is_remote = "://" in root and not root.startswith("file://")
        yield _check_remote_root(root) if is_remote else _check_local_root(root)


def _check_local_root(root: str) -> Finding:
    """Return the finding on a root that is a folder: can it be read and written here?"""
    path = Path(unquote(urlsplit(root).path) if root.startswith("file://") else root)
    if not path.is_dir():
        return fail(
            "storage",
            f"{root} is not a folder here",
            "create it where the workers run, or correct files.roots",
        )
    modes = (("read", os.R_OK | os.X_OK), ("written", os.W_OK))
    if denied := [verb for verb, mode in modes if not os.access(path, mode)]:
        fault = f"{root} cannot be {' or '.join(denied)} here"
        return fail("storage", fault, "give the rights to the user of the workers")
    return ok("storage", f"{root} can be read and written here")


def _check_remote_root(root: str) -> Finding:
    """Return the finding on a root in a storage service: can it be listed?"""
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(root)
        system.ls(path)
    except FileNotFoundError:
        return ok("storage", f"{root} answers, and is empty")
    except Exception as error:  # each library of a storage service has its own errors
        return fail(
            "storage", f"{root} cannot be listed: {error}", "check its name and the credentials of fsspec"
        )
    return ok("storage", f"{root} can be listed")
