"""Turn signals into something that a selector waits for."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_as_bytes(watched: Sequence[signal.Signals]) -> Iterator[int]:
    """Yield a descriptor from which one byte a signal can be read, its number.

    Only in the main thread. The handlers are restored at the end. Signals beyond its 64 KiB are dropped.
    """
    here, there = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _heard) for number in watched}
    wakeup = signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    try:
        yield here
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(here)
        os.close(there)


def _heard(number: int, frame: FrameType | None) -> None:
    """Do nothing: the byte in the pipe is what counts. Without a handler there would be none."""
