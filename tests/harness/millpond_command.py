"""Run a `millpond` command as a program. Where its start is not tested, `ForkedCommands` is quicker."""

import subprocess
import sys
from pathlib import Path

from millpond.tasks.settings import Settings, child_environment

#: The interpreter does not look for modules in the current folder.
MILLPOND = [sys.executable, "-P", "-m", "millpond"]


def run_millpond(
    settings: Settings, *words: str, folder: Path | None = None, stdin_text: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in `folder` if one is given; it may fail."""
    return subprocess.run(
        [*MILLPOND, *words],
        env=child_environment(settings),
        cwd=folder,
        input=stdin_text,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def start_millpond(settings: Settings, *words: str) -> "subprocess.Popen[str]":
    """Start a command whose output is read from pipes."""
    return subprocess.Popen(
        [*MILLPOND, *words],
        env=child_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
