"""Find the `millpond up` that this user runs on this machine, by the address file in its folder.

Commands use its broker if none is configured. `millpond up` holds the lock file of the folder while it runs,
so the address file of a killed one is ignored.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millpond.tasks.process.paths import state_folder
from millpond.tasks.settings import Settings

#: The names of the lock file and the address file.
LOCK, ADDRESS = "lock", "running.json"


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
            lists = {name: tuple(content[name]) for name in ("queues", "roots")}
            return None if try_lock(lock, shared=True) else LocalInstance(**{**content, **lists})
        finally:
            os.close(lock)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file; True if that succeeds. False if another process has an exclusive lock on it.

    A `shared` lock excludes exclusive ones only. The lock ends with the descriptor.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
