"""A delivery: one handing-out of a message to a consumer, and the server's clock as its process knows it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from millpond.broker.message import Message


@dataclass(slots=True, eq=False)
class Delivery:
    """A message, the token by which this delivery of it is settled, and the number of deliveries before it.

    `clock_ms` is added to the time of this host to get the time of the server. `lease` is the `QueueLease`
    under which this process has the message in flight. It is None in a prefork child, which only runs the
    task. `lost` is True once that lease has expired: another consumer may have the message. `on_settled` is
    called when the broker has confirmed the outcome.
    """

    message: Message
    queue: str = ""
    token: str = ""
    deliveries: int = 0
    clock_ms: int = 0
    due_ms: int | None = None
    lease: Any = None
    lost: bool = False
    on_settled: Callable[[], None] | None = None
    #: The run: the start of its handler (seconds since 1970 by this host's clock; None before it), the
    #: processor seconds that it used, and whether its Celery events are sent (None if nobody listens).
    started_at: float | None = None
    cpu_seconds: float = 0.0
    events_shown: bool | None = None
    #: True if the result backend did not take how the task ended: a worker notifies it later.
    needs_notice: bool = False
    #: When this process received it (monotonic seconds).
    fetched_at: float = field(default_factory=time.monotonic)

    @property
    def tag(self) -> str:
        """Return kombu's delivery tag. A token is unique within its queue, a tag within the process."""
        return f"{self.token} {self.queue}"

    def now_ms(self) -> int:
        """Return the server's time, ms since the epoch."""
        return int(time.time() * 1000) + self.clock_ms

    @property
    def ready_ms(self) -> int | None:
        """Return when the message became ready: when it was sent, or was due if that is later.

        The time is ms by the server's clock, or None if the message has neither time.
        """
        sent_ms, due_ms = self.message.sent_ms, self.due_ms
        if due_ms is None:
            return sent_ms
        return due_ms if sent_ms is None else max(sent_ms, due_ms)

    @property
    def has_expired(self) -> bool:
        """True if the time by which the task must have started is over, by the server's clock.

        Raises `BadMessage`.
        """
        expires_ms = self.message.expires_ms
        return expires_ms is not None and self.now_ms() > expires_ms


#: Returns the fields of a delivery that are sent to a prefork child. The child makes `Delivery(*fields)`.
delivery_fields = attrgetter("message", "queue", "token", "deliveries", "clock_ms", "due_ms")
