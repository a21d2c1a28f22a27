"""Find what `millpond up` runs on this machine for this user: it says so in its folder, beside its lock.

Where no broker is configured, the commands of the command line use it. The lock is held as long as the set-up
runs, so what one that was killed has said is not believed.
"""

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings, environment, settings, state_dir

LOCK, ADDRESS = "lock", "running.json"
USED = "no broker is configured: using the millpond up that runs here"


@dataclass(frozen=True)
class Nearby:
    """Say where a set-up can be reached, what its workers take from, and which files they may touch."""

    broker_url: str
    key_prefix: str = ""
    flower_url: str | None = None
    queues: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()

    def written(self) -> str:
        """Return this as the folder holds it; it has the broker's password."""
        return json.dumps(asdict(self))

    def adopted(self, chosen: Settings) -> Settings:
        """Return settings that name the broker of this set-up and, where they name none, its file roots."""
        changed: dict[str, Any] = {"broker_url": self.broker_url, "key_prefix": self.key_prefix}
        if not chosen.files.roots:
            changed["files"] = chosen.files.model_copy(update={"roots": self.roots})
        return chosen.model_copy(update=changed)


def nearby(folder: Path | None = None) -> Nearby | None:
    """Return what runs in a folder (None: the user's own), or None when nothing does."""
    folder = folder or state_dir()
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
        try:
            said = json.loads((folder / ADDRESS).read_text())
            return None if locked(lock, shared=True) else _read(said)
        finally:
            os.close(lock)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def settings_or_nearby(say: Callable[[str], None]) -> Settings:
    """Return the settings, with the broker of what runs nearby where they name none, and say so."""
    chosen = settings()
    if chosen.broker_url is None and (found := nearby()):
        say(USED)
        return found.adopted(chosen)
    return chosen


def adopt_nearby(say: Callable[[str], None]) -> Settings:
    """Return what `settings_or_nearby` does, and make it the settings of this process and its children."""
    chosen = settings_or_nearby(say)
    if chosen is not settings():
        os.environ.update(environment(chosen))
        settings.cache_clear()
    return settings()


def configured_broker(chosen: Settings) -> str:
    """Return the URL of the broker that the settings name; raise `SettingsError` when they name none."""
    if chosen.broker_url:
        return chosen.broker_url
    if nearby():
        raise SettingsError(
            "no broker is configured: set MILLPOND_BROKER_URL to the URL that the `millpond up` which runs "
            "here has printed"
        )
    raise SettingsError(
        "no broker is configured: set MILLPOND_BROKER_URL, as in redis://host:6379/0, "
        "or start one here with `millpond up`"
    )


def locked(lock: int, *, shared: bool = False) -> bool:
    """Lock a descriptor, True if no other has it; `shared` is for processes that look, at once if need be."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(said: dict[str, Any]) -> Nearby:
    return Nearby(**{**said, "queues": tuple(said["queues"]), "roots": tuple(said["roots"])})
