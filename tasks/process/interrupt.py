"""Ctrl-C in a command, or a reader of its output that goes away: it ends without a traceback, at any moment.

A `KeyboardInterrupt` in the middle of an import leaves by way of the imported module, which may catch it or
print it. Nothing has been begun then, so the process ends at once.
"""

import os
import signal
import sys
from types import FrameType

#: The exit code of a program that a person interrupted.
INTERRUPTED = 130

_IMPORTS = "<frozen importlib._bootstrap>"


def end_quietly() -> None:
    """End this process at a SIGINT while it imports. Otherwise the SIGINT raises `KeyboardInterrupt`.

    A process that was started to ignore SIGINT, as by nohup, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)


def end_at_once() -> None:
    """End this process at a SIGINT without another word: it has done all that it had to do."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def discard_output() -> None:
    """Discard the rest of the output: Python flushes it as it ends, and would report that nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _on_interrupt(_number: int, frame: FrameType | None) -> None:
    """End the process if it imports a module. Otherwise raise `KeyboardInterrupt`."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
