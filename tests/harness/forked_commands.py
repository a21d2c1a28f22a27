"""Run `millpond` commands in processes forked from one that has imported them.

Starting Python and importing takes most of a second for each command, and a test of a command's output does
not need it. A test of the start itself, of the environment or of an early interrupt runs a real command.
"""

import atexit
import fcntl
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import millpond

TOP = Path(__file__).parents[2]
_LONGEST_REQUEST = 500_000


@dataclass(frozen=True)
class Done:
    """The exit code of a command, and its output."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A running command. Its parent (`_keep`) writes its pid into a pipe, and then its exit code."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._pid = int(self._line())
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """Return the exit code. Raises `TimeoutError`."""
        if self.returncode is None:
            if not select.select([self._pipe], [], [], timeout)[0]:
                raise TimeoutError(f"the command has not ended after {timeout} s")
            self.returncode = int(self._line())
            os.close(self._pipe)
        return self.returncode

    def kill(self) -> None:
        """Kill the command, unless `wait` has returned its exit code."""
        if self.returncode is None:
            os.kill(self._pid, signal.SIGKILL)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            if not (more := os.read(self._pipe, 1)):
                raise AssertionError("the process that forks commands has ended")
            line += more
        return line


class ForkedCommands:
    """The process with the imports, which forks the commands."""

    def __init__(self) -> None:
        self._requests, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.harness.forked_commands", str(its.fileno())]
        with its:
            self._process = subprocess.Popen(
                command, pass_fds=[its.fileno()], cwd=TOP, stdin=subprocess.DEVNULL
            )

    def start(
        self, words: Sequence[str], env: Mapping[str, str], files: Sequence[int], *, terminal: bool = False
    ) -> Started:
        """Start a command with three open files as its standard streams.

        With `terminal` the first file becomes its controlling terminal.
        """
        request = {"words": [*words], "env": {**env}, "folder": str(Path.cwd()), "terminal": terminal}
        ours, its = os.pipe()
        socket.send_fds(self._requests, [json.dumps(request).encode()], [*files, its])
        os.close(its)
        return Started(ours)

    def run(
        self, words: Sequence[str], env: Mapping[str, str], *, stdin_text: str = "", timeout: float = 120.0
    ) -> Done:
        """Run a command to its end, without a terminal."""
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin_text.encode())
            given.seek(0)
            started = self.start(words, env, [given.fileno(), out.fileno(), err.fileno()])
            try:
                code = started.wait(timeout)
            finally:
                started.kill()
            out.seek(0), err.seek(0)
            return Done(code, out.read().decode(), err.read().decode())

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._process.wait(30)


def _serve(requests: socket.socket) -> None:
    """Import the modules of all commands, then fork a keeper for each request, until the socket is closed."""
    for folder in ("broker", "tasks", "producer", "monitor"):  # importing a module does nothing
        for module in pkgutil.walk_packages([str(TOP / "millpond" / folder)], f"millpond.{folder}."):
            if not module.name.endswith((".__main__", ".task")) and ".django" not in module.name:
                importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the keepers
    while True:
        text, files, _flags, _from = socket.recv_fds(requests, _LONGEST_REQUEST, 4)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            _keep(json.loads(text), files)
        for each in files:
            os.close(each)


def _keep(request: dict[str, Any], files: list[int]) -> NoReturn:
    """Fork the command, and write its pid and its exit code into the last file."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *its, pipe = files
    child = os.fork()
    if child == 0:
        os.close(pipe)
        _become(request, its)
    for each in its:
        os.close(each)
    os.write(pipe, b"%d\n" % child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(pipe, b"%d\n" % code)
    os._exit(0)


def _become(request: dict[str, Any], files: list[int]) -> NoReturn:
    """Become the process of the command: its session, streams, folder, environment and arguments. Run it."""
    code: object = 1
    try:
        os.setsid()
        for number, each in enumerate(files):
            os.dup2(each, number)
        os.closerange(3, 1_024)
        if request["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["millpond", *request["words"]]
        _open_streams()
        code = millpond.main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _open_streams() -> None:
    """Open the standard streams as Python does at its start. It keeps each under a second name."""
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    how: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1 if os.isatty(1) else -1, **how)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", **how)  # noqa: SIM115


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
