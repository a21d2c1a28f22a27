"""The folders of Millpond on this machine.

Apart from settings.py, since a health check, which runs every few seconds, must not load pydantic.
"""

import os
import tempfile
from pathlib import Path


def scratch() -> Path:
    """Return the folder for this machine's short-lived files."""
    return Path(os.environ.get("MILLPOND_SCRATCH") or tempfile.gettempdir())


def state_dir() -> Path:
    """Return the folder for the data that `millpond up` keeps between two starts."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "millpond"
