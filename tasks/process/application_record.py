"""The record of the brokers that the processes of a Celery application use on this host.

Where the settings name an application and no broker, the broker is in the application's own settings. A
health check cannot import the application every few seconds, so each worker and scheduler records its broker
and key prefix as it starts. The record is a file for each application and folder of settings, a line of
hashes for each namespace, below this user's scratch folder. Without a readable record, a check sees every
process, because it must not fail where a configuration is missing.
"""

import os
from contextlib import suppress
from pathlib import Path

from millpond.tasks.process.paths import is_own_folder, open_private_folder, private_scratch_folder
from millpond.tasks.process.process_namespace import ProcessNamespace, hash_text

_FOLDER = "applications"


def record_application(app: str | None, namespace: ProcessNamespace) -> None:
    """Record that a process of an application uses this namespace. An error of the file system is ignored.

    Nothing is recorded without an application, or for a broker that is not known.
    """
    if app is None or namespace in read_application(app) or not namespace.broker:
        return
    line, name = f"{namespace.broker} {namespace.key_prefix}\n".encode(), _file_name(app)
    with suppress(OSError):
        folder = open_private_folder(_FOLDER)
        try:
            _append_line(folder, name, line)
        finally:
            os.close(folder)


def read_application(app: str) -> tuple[ProcessNamespace, ...]:
    """Return the namespaces that were recorded for an application; none if there is no readable record."""
    folder = private_scratch_folder()
    with suppress(OSError, ValueError):
        if is_own_folder(folder) and is_own_folder(folder / _FOLDER):
            lines = (folder / _FOLDER / _file_name(app)).read_text().splitlines()
            pairs = [line.split(" ") for line in lines]
            return tuple(ProcessNamespace(broker, key_prefix) for broker, key_prefix in pairs)
    return ()


def _append_line(folder: int, name: str, line: bytes) -> None:
    """Append a line to a file. Processes that start together append in turn.

    The file is removed if the line cannot be written, as on a full disk: without the line, it would be wrong.
    """
    file = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        is_whole = os.write(file, line) == len(line)
    except OSError:
        is_whole = False
    finally:
        os.close(file)
    if not is_whole:
        os.unlink(name, dir_fd=folder)


def _file_name(app: str) -> str:
    """Return the name of the file: a hash of the application's name and of the folder of the settings file.

    Two projects of a host may have applications of one name, which are not the same.
    """
    config = Path(os.environ.get("MILLPOND_CONFIG") or "millpond.toml")
    return hash_text(f"{app}\n{config.resolve().parent}")
