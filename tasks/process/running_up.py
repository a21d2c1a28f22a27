"""Find the `millpond up` that runs on this machine for this user, from a file in its folder, local its lock.

Commands use it if no broker is configured. The lock is held as long as `millpond up` runs, so the file of
a killed one is ignored.
"""

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings, child_environment, settings, state_folder

LOCK, ADDRESS = "lock", "running.json"
USED = "no broker is configured: using the millpond up that runs here"


@dataclass(frozen=True)
class LocalInstance:
    """A running `millpond up`: its addresses, the queues of its workers, and their file roots."""

    broker_url: str
    key_prefix: str = ""
    flower_url: str | None = None
    queues: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the content of the file. It holds the broker's password."""
        return json.dumps(asdict(self))

    def apply_to(self, configured: Settings) -> Settings:
        """Return the settings with this instance's broker, and its file roots if the settings name none."""
        changed: dict[str, Any] = {"broker_url": self.broker_url, "key_prefix": self.key_prefix}
        if not configured.files.roots:
            changed["files"] = configured.files.model_copy(update={"roots": self.roots})
        return configured.model_copy(update=changed)


def find_local_instance(folder: Path | None = None) -> LocalInstance | None:
    """Return the instance that runs in a folder (None: the user's own folder).

    Return None if no instance runs.
    """
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


def settings_or_local(print_line: Callable[[str], None]) -> Settings:
    """Return the settings. If they name no broker, add the local instance's and print a line about it."""
    configured = settings()
    if configured.broker_url is None and (local := find_local_instance()):
        print_line(USED)
        return local.apply_to(configured)
    return configured


def adopt_local(print_line: Callable[[str], None]) -> Settings:
    """As `settings_or_local`, and make the result the settings of this process and of its children."""
    configured = settings_or_local(print_line)
    if configured is not settings():
        os.environ.update(child_environment(configured))
        settings.cache_clear()
    return settings()


def configured_broker(configured: Settings) -> str:
    """Return the URL of the broker in the settings. Raises `SettingsError` if there is none."""
    if configured.broker_url:
        return configured.broker_url
    if find_local_instance():
        raise SettingsError(
            "no broker is configured: set MILLPOND_BROKER_URL to the URL that the running `millpond up` "
            "has printed"
        )
    raise SettingsError(
        "no broker is configured: set MILLPOND_BROKER_URL, as in redis://host:6379/0, "
        "or start one here with `millpond up`"
    )


def try_lock(lock: int, *, shared: bool = False) -> bool:
    """Lock a descriptor. Return False if another process has the lock. `shared` is for readers."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse_instance(content: dict[str, Any]) -> LocalInstance:
    return LocalInstance(**{**content, "queues": tuple(content["queues"]), "roots": tuple(content["roots"])})
