"""Receive signals as bytes of a pipe, which a selector can wait for."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signal_pipe(watched: Sequence[signal.Signals]) -> Iterator[int]:
    """Yield a descriptor from which each signal is read as one byte, its number.

    Only the main thread may call this. The handlers are restored at the end. Signals are dropped while the
    pipe is full (64 KiB).
    """
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _ignore_signal) for number in watched}
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield read_end
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


def _ignore_signal(number: int, frame: FrameType | None) -> None:
    """Do nothing. Without a handler, Python would not write the signal to the pipe."""
