"""A terminal: it runs commands one after the other, and keeps their folder and environment between them.

A command that does not end keeps its terminal until Ctrl-C.
"""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

#: Runs a command in bash, and writes the folder and the environment after it to a descriptor.
_ENTER = 'eval "$1"; code=$?; { pwd; env -0; } >&"$2"; exit $code'


@dataclass(frozen=True)
class Ended:
    """An ended command: its exit code, its output, its time, and its longest time without output."""

    code: int
    printed: str
    seconds: float
    silent_seconds: float


class Terminal:
    """A terminal in a folder, with an environment. `keeps` is the command in its foreground, if any."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = dict(env)
        self.keeps: Kept | None = None

    def run(self, command: str, *, within_seconds: float) -> Ended:
        """Run a command to its end. It is killed after `within_seconds`."""
        reading, writing = os.pipe()
        process = subprocess.Popen(
            ["bash", "-c", _ENTER, "bash", command, str(writing)],
            cwd=self.folder,
            env=self.env,
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(writing)
        printed, seconds, silent = _follow(process, within_seconds)
        with os.fdopen(reading) as left:
            folder, _, variables = left.read().partition("\n")
        if folder:
            self.folder = Path(folder)
            self.env = dict(entry.split("=", 1) for entry in variables.split("\0") if "=" in entry)
        return Ended(process.returncode, printed, seconds, silent)

    def keep(self, command: str) -> "Kept":
        """Start a command that stays in the foreground."""
        self.keeps = Kept(command, self)
        return self.keeps


class Kept:
    """A command that stays in the foreground. On its pseudo-terminal it does not buffer its output."""

    def __init__(self, command: str, terminal: Terminal) -> None:
        self.command = command
        self._terminal = terminal
        self._ours, theirs = os.openpty()
        self._process = subprocess.Popen(
            ["bash", "-c", 'eval "$1"', "bash", command],
            cwd=terminal.folder,
            env=terminal.env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._read: list[bytes] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def printed(self) -> str:
        """The output so far."""
        return b"".join(self._read).decode(errors="replace").replace("\r", "")

    @property
    def code(self) -> int | None:
        """The exit code, None while the command runs."""
        return self._process.poll()

    def interrupt(self, *, within_seconds: float) -> int:
        """Press Ctrl-C and return the exit code. The terminal is free then. Kill after `within_seconds`."""
        if self.code is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            code = self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        self._thread.join(within_seconds)
        os.close(self._ours)
        self._terminal.keeps = None
        return code

    def _follow(self) -> None:
        try:
            while data := os.read(self._ours, 4096):
                self._read.append(data)
        except OSError:  # Linux's word for a terminal that no process has open any more
            return


def _follow(process: "subprocess.Popen[bytes]", within_seconds: float) -> tuple[str, float, float]:
    """Read a command's output to its end. Return it, its seconds, and the longest time without output."""
    assert process.stdout is not None
    read, begun, silent = list[bytes](), monotonic(), 0.0
    heard, deadline = begun, begun + within_seconds
    with selectors.DefaultSelector() as selector, process.stdout as output:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(deadline - monotonic()):
                os.killpg(process.pid, signal.SIGKILL)
                read.append(f"\nnot done within {within_seconds:.0f} s".encode())
                break
            silent, heard = max(silent, monotonic() - heard), monotonic()
            data = os.read(output.fileno(), 65536)
            if not data:
                break
            read.append(data)
    process.wait()
    return b"".join(read).decode(errors="replace"), monotonic() - begun, silent
