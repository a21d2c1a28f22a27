"""Know, by the server's clock, when a task may no longer start.

Celery asks its own host's clock, and only before the task goes to the pool; in a pool of threads it may wait
there for its slot.
"""

import time
from typing import Any

from celery.worker.request import Request
from celery.worker.state import revoked

from millpond.broker.outcomes import CANCELLED, EXPIRED, GIVEN_BACK, Settlement


class ExpiringRequest(Request):
    """Celery's request, whose expiry is by the server's clock and holds until the body starts."""

    _request_dict: dict[str, Any]

    @property
    def has_expired(self) -> bool:
        """Say whether the time by which it had to start is over."""
        if self.expires is None:
            return False
        own = self._request_dict.get("millpond") or {}
        return bool(time.time() + own.get("clock_ms", 0) / 1000 > self.expires.timestamp())

    def maybe_expire(self) -> bool:
        """Mark an expired task as revoked, as Celery has it."""
        if self.has_expired:
            revoked.add(self.id)
        return self.has_expired

    def not_started(self, *, cancelled: bool) -> Settlement:
        """Return how to settle a task that was not started."""
        return CANCELLED if cancelled else EXPIRED if self.has_expired else GIVEN_BACK
