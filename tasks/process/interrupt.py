"""End a command without a traceback after Ctrl-C, or after the reader of its output has gone.

A `KeyboardInterrupt` during an import passes through the imported module, which may catch or print it. No
work has begun during imports, so the process ends at once then.
"""

import os
import signal
import sys
from types import FrameType

#: The exit code of a program that was interrupted by a SIGINT.
INTERRUPTED = 130

#: The file name in the frames of Python's import system.
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


def end_on_interrupted_import() -> None:
    """Make a SIGINT end this process during an import. At other times it raises `KeyboardInterrupt`.

    A process that was started with SIGINT ignored, as by nohup, still ignores it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)


def exit_on_interrupt() -> None:
    """Make a SIGINT end this process at once, for a command that has done its work."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def discard_output() -> None:
    """Discard all further output, so that Python does not report a broken pipe as it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _on_interrupt(_number: int, frame: FrameType | None) -> None:
    """Handle a SIGINT: end the process if it imports a module. Otherwise raise `KeyboardInterrupt`."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
