"""A feature: a small function that uses it and returns a value, and the value that Celery promises."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: How long one feature may take, on a machine that does other things as well.
SECONDS = 320

#: How long a feature waits for an event; a wait ends as soon as the event has come.
PATIENCE = 90


@dataclass(frozen=True)
class Feature:
    """A feature of Celery, and its expected result."""

    section: str
    name: str
    promised: Any
    use: Callable[[], Any]

    def try_it(self) -> Any:
        """Return the result of using it, or the words of its exception."""
        previous = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        try:
            return json.loads(json.dumps(self.use()))
        except Exception as error:
            return f"raised {type(error).__name__}: {error}"[:300]
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)


def until(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return the value of `look` once it is true, or the last one when the time is up."""
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not there after {SECONDS} s")


FEATURES: dict[str, Feature] = {}


def feature(section: str, name: str, promised: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Declare the decorated function to be a feature, with its expected result on stock Celery."""

    def declare(use: Callable[[], Any]) -> Callable[[], Any]:
        assert name not in FEATURES, name
        FEATURES[name] = Feature(section, name, promised, use)
        return use

    return declare
