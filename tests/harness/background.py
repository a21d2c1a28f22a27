"""Call a function repeatedly in a thread beside a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeating(act: Callable[[], object], every_seconds: float) -> Iterator[None]:
    """Call `act` in a thread for the length of a block, each time `every_seconds` after the last call."""
    stop = Event()

    def repeat() -> None:
        while not stop.wait(every_seconds):
            act()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
