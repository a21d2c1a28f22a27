"""A delivery: one handing-out of a message to a consumer, and the server's clock as its process knows it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from millpond.broker.message import Message


@dataclass(slots=True, eq=False)
class Delivery:
    """A message, the token by which this handing-out of it is settled, and the deliveries before it.

    `clock_ms` leads from this host's clock to the server's. `lease` is the one under which its process has it
    (broker/consume/queue_lease.py), or None in a child, which only runs it. Once that lease expired the
    delivery is `lost`: another consumer may have the message. `on_settled` is called once the broker has
    confirmed its outcome.
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
    #: Of its run: the start of its handler (seconds since 1970 by this host's clock; None before it), the
    #: seconds of a processor it took, and whether its Celery events are sent (None if nobody listens).
    started_at: float | None = None
    cpu_seconds: float = 0.0
    events_shown: bool | None = None
    #: When its process received it (monotonic seconds of that process).
    fetched_at: float = field(default_factory=time.monotonic)

    @property
    def tag(self) -> str:
        """Return kombu's delivery tag: a token is unique for its queue, a tag for the process."""
        return f"{self.token} {self.queue}"

    def now_ms(self) -> int:
        """Return the server's time, ms since the epoch."""
        return int(time.time() * 1000) + self.clock_ms

    @property
    def ready_ms(self) -> int | None:
        """Return when the message became ready, by the server's clock, or None if its sender did not say."""
        sent_ms, due_ms = self.message.sent_ms, self.due_ms
        return sent_ms if due_ms is None else due_ms if sent_ms is None else max(sent_ms, due_ms)

    @property
    def has_expired(self) -> bool:
        """True if the time by which the task must have started is over."""
        expires_ms = self.message.expires_ms if self.message.headers.get("expires") is not None else None
        return expires_ms is not None and self.now_ms() > expires_ms


#: Returns the fields of a delivery that are sent to a child, which makes `Delivery(*fields)` of them.
delivery_fields = attrgetter("message", "queue", "token", "deliveries", "clock_ms", "due_ms")
