"""Find the `millpond up` that this user runs on this machine, by the address file in its folder.

Commands use its broker if none is configured. `millpond up` holds the lock file of the folder while it runs,
so the address file of a killed one is ignored.
"""

import fcntl
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.process.paths import state_folder
from millpond.tasks.settings import Settings, child_environment, settings

#: The names of the lock file and the address file.
LOCK, ADDRESS = "lock", "running.json"

#: The line for people when a command uses the local instance.
USING_LOCAL = "no broker is configured: using the millpond up that runs here"


@dataclass(frozen=True)
class LocalInstance:
    """A running `millpond up`: its addresses, the queues of its workers, and their file roots."""

    broker_url: str
    key_prefix: str = ""
    flower_url: str | None = None
    queues: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the content of the address file. It has the broker's password."""
        return json.dumps(asdict(self))

    def apply_to(self, settings: Settings) -> Settings:
        """Return the settings with this instance's broker, and with its file roots if they have none."""
        changed: dict[str, Any] = {"broker_url": self.broker_url, "key_prefix": self.key_prefix}
        if not settings.files.roots:
            changed["files"] = settings.files.model_copy(update={"roots": self.roots})
        return settings.model_copy(update=changed)


def find_local_instance(folder: Path | None = None) -> LocalInstance | None:
    """Return the instance that runs in a folder, by default the state folder. Return None if none runs."""
    folder = folder or state_folder()
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
        try:
            content = json.loads((folder / ADDRESS).read_text())
            return None if try_lock(lock, shared=True) else _parse_instance(content)
        finally:
            os.close(lock)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def settings_or_local() -> Settings:
    """Return the settings. If they have no broker, add the local instance's, and print a line on stderr."""
    configured = settings()
    if configured.broker_url is None and (local := find_local_instance()):
        print(USING_LOCAL, file=sys.stderr)
        return local.apply_to(configured)
    return configured


def apply_local_instance() -> Settings:
    """Return `settings_or_local`, and make them the settings of this process and of its children.

    This writes to the environment and clears the cache of `settings`.
    """
    configured = settings_or_local()
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


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file; True if that succeeds. False if another process has an exclusive lock on it.

    A `shared` lock excludes exclusive ones only. The lock ends with the descriptor.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse_instance(content: dict[str, Any]) -> LocalInstance:
    """Return the instance of an address file. Raises `KeyError` or `TypeError` if fields are missing."""
    return LocalInstance(**{**content, "queues": tuple(content["queues"]), "roots": tuple(content["roots"])})
