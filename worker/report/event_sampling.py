"""Built-in middleware that samples Celery's events: those of all tasks up to a rate, of some beyond it.

A person reads a few tasks a second, and a listener spends longer on the events of a short task than its
worker on the task. So a task is chosen as it is received, and its later events follow. A failure is always
sent, with the events before it. Pages and metrics count every task, in Redis.
"""

import time
from collections.abc import Callable

from millpond.broker.delivery import Delivery
from millpond.tasks.middleware import Middleware

#: A process that was quiet may show the tasks of this many seconds at once.
BURST_SECONDS = 10.0


class EventSampling(Middleware):
    """Chooses tasks at a rate (a second), by a token bucket."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._max_tokens = self._tokens = per_second * BURST_SECONDS
        self._clock = clock
        self._at = clock()

    def shows_events(self, delivery: Delivery) -> bool:
        """True if this task is chosen. Only the event loop calls this."""
        del delivery
        now = self._clock()
        self._tokens = min(self._max_tokens, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
