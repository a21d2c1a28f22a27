"""Run a command as a person does: in a terminal of so many columns, with a keyboard."""

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

_STEERING = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][AB0]|[=>78])")


Process = subprocess.Popen[bytes] | Started


def in_terminal(
    start: Callable[[int], Process],
    *,
    columns: int,
    keys: Sequence[tuple[str, bytes]] = (),
    timeout_seconds: float = 120.0,
) -> tuple[int, str]:
    """Run the process of `start` in a terminal; return its exit code and its output.

    Each key is pressed once its words are there.
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
    """Return how a program is started in a terminal."""

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
    """Return how a `millpond` command is forked in a terminal."""
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
    """Return the lines that were written to a terminal, without its control sequences."""
    written = written.replace("\x1b[H", "\n")  # the next screen
    return [line.rstrip() for line in _STEERING.sub("", written).replace("\r\n", "\n").split("\n")]
