"""Do something again and again beside a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeating(act: Callable[[], object], every_seconds: float) -> Iterator[None]:
    """Call `act` in a thread, each time after so many seconds, until the block is left."""
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
