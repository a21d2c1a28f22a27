"""Wait for a condition in a scenario or the harness. Tests have the fixture `eventually`."""

from collections.abc import Callable
from time import monotonic, sleep


def wait_until(
    reached: Callable[[], object], within_seconds: float, failure: str, *, every_seconds: float = 0.05
) -> None:
    """Poll until `reached` returns a true value. Raises `AssertionError` with `failure` at the deadline."""
    deadline = monotonic() + within_seconds
    while not reached():
        assert monotonic() < deadline, f"{failure} within {within_seconds} s"
        sleep(every_seconds)
