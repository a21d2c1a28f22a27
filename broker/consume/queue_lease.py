"""The lease of a process on one queue: the deliveries in flight under it, and the queued outcomes."""

import math
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import Outcome

#: A difference of less than this does not show that a clock was set: both are read in whole milliseconds.
STEP_MS = 5


@dataclass
class QueueLease:
    """The messages that one process has in flight of one queue, and the known state of the queue."""

    keys: QueueKeys
    #: The present name of the consumer. After the lease was lost or resumed it is a new one.
    consumer: str
    #: The kinds that this process has, each between newlines, and the name of the consumer under which a call
    #: has announced them.
    kinds: str = ""
    announced_by: str = ""
    #: The term of the lease after a call or a renewal, if the queue has a term of its own; else 0.
    own_term_ms: int = 0
    #: Token -> delivery.
    in_flight: dict[str, Delivery] = field(default_factory=dict)
    #: The outcomes that the next calls will send, and since when they are gathered (monotonic seconds).
    outcomes: deque[tuple[Delivery, Outcome]] = field(default_factory=deque)
    outcomes_since: float = 0.0
    #: The number of calls so far and the greatest sequence number of a delivery. Both are parts of tokens.
    calls: int = 0
    last_sequence: int = 0
    #: True once a call has registered the consumer. `lease_lost`: the lease was found to have expired.
    registered: bool = False
    lease_lost: bool = False
    #: True once messages whose consumer is not listed were searched for (lease_renewer.py).
    orphans_searched: bool = False
    #: The lease does not expire before this time, by `elapsed_seconds`. Infinite before its first renewal.
    leased_until: float = math.inf
    #: True if a fetch may find messages.
    fetchable: bool = True
    #: True if messages wait for a permit of an in-flight limit: the call that settles one fetches the next.
    is_limited: bool = False
    #: When to fetch without a wake token (monotonic seconds), or 0.
    fetch_at: float = 0.0
    #: The number of outcomes that came after the lease had expired, or whose delivery had an outcome already.
    late: int = 0
    #: The number of fetched plus the number of settled messages. It grows while the process works.
    fetched_and_settled: int = 0
    #: The server's clock minus this host's at the last calls, ms.
    clocks: deque[int] = field(default_factory=lambda: deque(maxlen=16))
    #: The ms to add to this host's clock to get the server's. It may be a little too large, never too small:
    #: it is measured from when a call was sent, because a busy process reads the reply late. The quickest
    #: call counts.
    clock_ms: int = 0
    #: When the clocks were last compared (monotonic seconds).
    clocked_at: float = 0.0

    def term_ms(self, default: int) -> int:
        """Return the term of the lease after a call or a renewal: the queue's own, or else the default."""
        return self.own_term_ms or default

    @property
    def queue(self) -> str:
        """Return the name of the queue."""
        return self.keys.queue

    @property
    def wake_keys(self) -> tuple[str, str]:
        """The lists of wake tokens: for all consumers of the queue, and for this one alone."""
        return self.keys.wake, f"{self.keys.wake}:{self.consumer}"

    def record_clock(self, ahead_ms: int, *, took_ms: int) -> None:
        """Record by how much the server's clock was ahead of this host's when a call was sent.

        The difference includes a part of the time that the call took (`took_ms`). If it has grown by more
        than that, a clock was set, and earlier differences are forgotten.
        """
        if self.clocks and ahead_ms - self.clock_ms > took_ms + STEP_MS:
            self.clocks.clear()
        self.clocks.append(ahead_ms)
        self.clock_ms = min(self.clocks)
        self.clocked_at = time.monotonic()

    def add_delivery(self, delivery: Delivery) -> None:
        """Register a delivery as in flight under this lease."""
        delivery.lease = self
        self.in_flight[delivery.token] = delivery
        self.fetched_and_settled += 1

    def queue_outcome(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Queue the outcome of a delivery, which is no longer in flight here. The next call sends it.

        Return False if the delivery was not in flight here, for example because it has an outcome already.
        """
        if self.in_flight.pop(delivery.token, None) is None:
            return False
        self.fetched_and_settled += 1
        if not self.outcomes:
            self.outcomes_since = time.monotonic()
        self.outcomes.append((delivery, outcome))
        return True

    def mark_deliveries_lost(self, tokens: Iterable[str]) -> int:
        """Mark the deliveries with these tokens as lost, because the server does not have them in flight.

        Return how many of them had no outcome.
        """
        lost = [self.in_flight[token] for token in tokens if token in self.in_flight]
        for delivery in lost:
            delivery.lost = True
        return len(lost)

    def start_anew(self, new_consumer: str) -> None:
        """Begin a new lease under a new name of the consumer, after this one has expired.

        The messages that were in flight belong to other consumers now, and their outcomes here change
        nothing.
        """
        for delivery in self.in_flight.values():
            delivery.lost = True
        self.consumer = new_consumer
        self.registered = self.orphans_searched = False
        self.lease_lost = False
        self.leased_until = math.inf
        self.fetchable = True

    def take_outcomes(self, limit: int = 100) -> list[tuple[Delivery, Outcome]]:
        """Remove and return the oldest outcomes, at most `limit`, for a call that is sent now."""
        taken: list[tuple[Delivery, Outcome]] = []
        with suppress(IndexError):  # a thread may take some at the same time, while the pool drains
            while len(taken) < limit:
                taken.append(self.outcomes.popleft())
        self.outcomes_since = time.monotonic()
        return taken

    def put_back_outcomes(self, outcomes: list[tuple[Delivery, Outcome]]) -> None:
        """Queue outcomes again whose call got no reply. The script carries out each only once."""
        self.outcomes.extendleft(reversed(outcomes))


@dataclass(frozen=True)
class FetchRequest:
    """One call of settle_and_fetch.lua: the lease, the credit, the free slots, the outcomes to settle."""

    lease: QueueLease
    credit: int
    free_slots: int
    outcomes: list[tuple[Delivery, Outcome]]
    #: When it was sent, ms by this host's clock. None for a pipelined call, which waits at the server.
    sent_ms: int | None = field(default_factory=lambda: int(time.time() * 1000))
    #: The name that the consumer had when a pipelined call was sent.
    consumer: str = ""
