"""Built-in middleware that samples Celery's events: up to a rate it shows all tasks, beyond the rate some.

A person reads a few tasks a second, and a program like Flower spends longer on the events of a short task
than its worker on the task. So it is decided at the receipt of a task whether its events are sent. A failure
is always sent, with the events before it. Pages and metrics count every task, in Redis.
"""

import time
from collections.abc import Callable

from millpond.broker.delivery import Delivery
from millpond.tasks.middleware import Middleware

#: After a quiet time a process may show at once as many tasks as in this many seconds at the rate.
BURST_SECONDS = 10.0


class EventSampling(Middleware):
    """Chooses at most `per_second` tasks a second, by a token bucket."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._max_tokens = self._tokens = per_second * BURST_SECONDS
        self._clock = clock
        self._refilled_at = clock()

    def shows_events(self, delivery: Delivery) -> bool:
        """True if the events of this task are sent. Takes a token of the bucket. Not safe for threads."""
        del delivery
        now = self._clock()
        refill = (now - self._refilled_at) * self._per_second
        self._tokens = min(self._max_tokens, self._tokens + refill)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
