"""Run a command in a terminal of a given width, and press keys when words appear."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from tests.harness.forked_commands import ForkedCommands, Started

#: Control sequences of a terminal.
_CONTROL_SEQUENCES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][AB0]|[=>78])")


Process = subprocess.Popen[bytes] | Started


def in_terminal(
    start: Callable[[int], Process],
    *,
    columns: int,
    keys: Sequence[tuple[str, bytes]] = (),
    timeout_seconds: float = 120.0,
) -> tuple[int, str]:
    """Run a process in a terminal, and return its exit code and its output.

    `start` starts the process on the descriptor of a terminal. `keys` are pairs of words and a key, which is
    pressed once the output has the words. Raises `AssertionError` if the process has not ended in time.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = start(its)
    os.close(its)
    try:
        return _watched(process, ours, list(keys), timeout_seconds)
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def real(argv: Sequence[str], env: Mapping[str, str]) -> Callable[[int], Process]:
    """Return a function that starts a program in a terminal."""

    def start(terminal: int) -> Process:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C is a signal to it
        )

    return start


def forked(
    commands: ForkedCommands, words: Sequence[str], env: Mapping[str, str]
) -> Callable[[int], Process]:
    """Return a function that forks a `millpond` command in a terminal."""
    return lambda terminal: commands.start(words, env, [terminal] * 3, terminal=True)


def _watched(
    process: Process, ours: int, keys: list[tuple[str, bytes]], timeout_seconds: float
) -> tuple[int, str]:
    deadline, said = monotonic() + timeout_seconds, b""
    while monotonic() < deadline:
        readable, _, _ = select.select([ours], [], [], 0.05)
        try:
            more = os.read(ours, 65_536) if readable else b""
        except OSError:  # the last process that had it has ended
            break
        said += more
        if keys and keys[0][0].encode() in said:
            os.write(ours, keys.pop(0)[1])
    else:
        raise AssertionError(f"it has not ended after {timeout_seconds} s: {said[-2000:]!r}")
    return process.wait(10), said.decode(errors="replace")


def lines_of(written: str) -> list[str]:
    """Return the lines of a terminal's output, without its control sequences."""
    written = written.replace("\x1b[H", "\n")  # the next screen
    return [line.rstrip() for line in _CONTROL_SEQUENCES.sub("", written).replace("\r\n", "\n").split("\n")]
