"""Find the folders on this machine; settings.py gives the same names.

Apart from settings.py because a health check, which runs every few seconds, has no time to load pydantic.
"""

import os
import tempfile
from pathlib import Path


def scratch() -> Path:
    """Return the folder for this machine's short-lived files."""
    return Path(os.environ.get("MILLPOND_SCRATCH") or tempfile.gettempdir())


def state_dir() -> Path:
    """Return the folder for what this user's embedded set-up keeps between two starts."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "millpond"
