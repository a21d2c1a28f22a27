"""The lease of a process on one queue: the deliveries in flight under it, and the outcomes to be sent."""

import math
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import Outcome

#: Clocks are read in whole milliseconds: less than this is no step of one.
STEP_MS = 5


@dataclass
class QueueLease:
    """The messages that one process has in flight of one queue, and the known state of the queue."""

    keys: QueueKeys
    consumer: str
    #: The kinds that this process has, each between newlines, and the consumer that announced them.
    kinds: str = ""
    announced: str = ""
    #: How long the lease lasts after a call or a renewal, if the queue has a term of its own; else 0.
    own_term_ms: int = 0
    in_flight: dict[str, Delivery] = field(default_factory=dict)
    outcomes: deque[tuple[Delivery, Outcome]] = field(default_factory=deque)
    outcomes_since: float = 0.0
    #: The number of calls so far, which is part of each token, and the greatest sequence of a delivery.
    calls: int = 0
    seen: int = 0
    registered: bool = False
    lease_lost: bool = False
    #: True once messages were searched for whose consumer is not listed (broker/consume/orphans.py).
    orphans_sought: bool = False
    #: The time until which the lease surely lasts, by `elapsed_seconds`; infinite before its first renewal.
    leased_until: float = math.inf
    #: True if a fetch may find something, and the time to fetch without being woken (monotonic seconds).
    fetchable: bool = True
    #: True if messages wait for a permit of an in-flight limit: the call that settles one fetches the next.
    is_limited: bool = False
    look_at: float = 0.0
    late: int = 0
    #: Messages fetched and messages settled: these grow while a consumer is at work.
    fetched_and_settled: int = 0
    #: The server's clock minus ours, ms, measured from when the last fetches were sent.
    clocks: deque[int] = field(default_factory=lambda: deque(maxlen=16))
    #: The ms to add to this host's clock for the server's time, or a little more, never less: a busy process
    #: reads a reply late, so the time of the request counts, and the quickest call is the most exact.
    clock_ms: int = 0
    clocked_at: float = 0.0

    def term_ms(self, default: int) -> int:
        """Return how long the lease lasts after a call or a renewal."""
        return self.own_term_ms or default

    @property
    def queue(self) -> str:
        """Return the name of the queue."""
        return self.keys.queue

    @property
    def wake_keys(self) -> tuple[str, str]:
        """The lists of wake tokens: for every consumer of the queue, and for this one alone."""
        return self.keys.wake, f"{self.keys.wake}:{self.consumer}"

    def note_clock(self, ahead_ms: int, *, took_ms: int) -> None:
        """Note by how much the server's clock was ahead when a call was sent that took `took_ms`.

        A call can seem as late as it took: a greater difference is a clock that was set.
        """
        if self.clocks and ahead_ms - self.clock_ms > took_ms + STEP_MS:
            self.clocks.clear()
        self.clocks.append(ahead_ms)
        self.clock_ms = min(self.clocks)
        self.clocked_at = time.monotonic()

    def add_delivery(self, delivery: Delivery) -> None:
        """Note a delivery that was fetched."""
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

    def mark_lost(self, tokens: Iterable[str]) -> int:
        """Mark deliveries that the server does not have in flight as lost. Return how many had not ended."""
        lost = [self.in_flight[token] for token in tokens if token in self.in_flight]
        for delivery in lost:
            delivery.lost = True
        return len(lost)

    def begin_anew(self, successor: str) -> None:
        """Start again after the lease has expired.

        The messages that were in flight belong to other consumers, and their outcomes here change nothing.
        """
        for delivery in self.in_flight.values():
            delivery.lost = True
        self.consumer = successor
        self.registered = self.orphans_sought = False
        self.lease_lost = False
        self.leased_until = math.inf
        self.fetchable = True

    def take_outcomes(self, limit: int = 100) -> list[tuple[Delivery, Outcome]]:
        """Return the oldest outcomes, which are sent now."""
        taken: list[tuple[Delivery, Outcome]] = []
        with suppress(IndexError):  # a thread of a pool that drains takes some at the same time
            while len(taken) < limit:
                taken.append(self.outcomes.popleft())
        self.outcomes_since = time.monotonic()
        return taken

    def put_back(self, outcomes: list[tuple[Delivery, Outcome]]) -> None:
        """Keep outcomes whose call got no reply, to send them again. The script carries out each once."""
        self.outcomes.extendleft(reversed(outcomes))


@dataclass(frozen=True)
class FetchRequest:
    """One call of settle_and_fetch.lua: its queue, the credit of messages, the outcomes to settle."""

    lease: QueueLease
    credit: int
    free_slots: int
    outcomes: list[tuple[Delivery, Outcome]]
    #: When it was sent, ms by this host's clock; None if it waits at the server before it is carried out.
    asked_ms: int | None = field(default_factory=lambda: int(time.time() * 1000))
    #: The name of the consumer that sent it.
    consumer: str = ""
