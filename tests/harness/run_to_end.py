"""Run a program to its end, and read its output."""

import subprocess
from collections.abc import Sequence
from typing import Any


def run_to_end(
    command: Sequence[str], *, check: bool = False, timeout: float = 120, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Return the exit code and the output of a program. With `check`, a failure shows its errors.

    `options` are others of `subprocess.run`.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    assert done.returncode == 0 or not check, done.stderr
    return done
