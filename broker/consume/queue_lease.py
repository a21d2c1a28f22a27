"""Keep what a process holds of one queue, under one lease, and describe a call of turn.lua."""

import math
import time
from collections import deque
from dataclasses import dataclass, field

from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import Outcome


@dataclass
class Hold:
    """Keep what this process holds of one queue."""

    keys: QueueKeys
    consumer: str
    held: dict[str, Delivery] = field(default_factory=dict)
    pending: deque[tuple[Delivery, Outcome]] = field(default_factory=deque)
    pending_since: float = 0.0
    registered: bool = False
    #: The kinds that this process has, each between newlines, and the consumer that announced them.
    kinds: str = ""
    announced: str = ""
    lease_lost: bool = False
    #: Until when the lease surely lasts, by `elapsed_seconds`; endless before its first renewal.
    leased_until: float = math.inf
    #: Whether a look at the queue may find something, and when to look without being woken (monotonic
    #: seconds).
    hungry: bool = True
    look_at: float = 0.0
    late: int = 0
    #: How many messages were fetched and settled: what tells a consumer at work from one that is stuck.
    moves: int = 0
    #: What the last turns said of the server's clock: its time less ours when they were asked (ms).
    clocks: deque[int] = field(default_factory=lambda: deque(maxlen=16))
    clocked_at: float = 0.0

    @property
    def queue(self) -> str:
        """Name the queue."""
        return self.keys.queue

    @property
    def clock_ms(self) -> int:
        """Return what to add to this host's clock to have the server's, or a little more, never less.

        A busy process reads a reply late, so what counts is when it was asked; the quickest turn tells best.
        """
        return min(self.clocks, default=0)

    def take(self, delivery: Delivery) -> None:
        """Note a message that was fetched."""
        delivery.lease = self
        self.held[delivery.token] = delivery
        self.moves += 1

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Queue the outcome of a delivery to be sent.

        False when it is not held here, as after a second acknowledgement.
        """
        if self.held.pop(delivery.token, None) is None:
            return False
        self.moves += 1
        if not self.pending:
            self.pending_since = time.monotonic()
        self.pending.append((delivery, outcome))
        return True

    def lose(self, successor: str) -> None:
        """Start anew after the lease ran out.

        What was held belongs to others, and its settlements will be late.
        """
        for held in self.held.values():
            held.lost = True
        self.consumer = successor
        self.registered = False
        self.lease_lost = False
        self.leased_until = math.inf
        self.hungry = True

    def settlements(self, limit: int) -> list[tuple[Delivery, Outcome]]:
        """Take the oldest settlements out of those to be sent."""
        taken = [self.pending.popleft() for _ in range(min(limit, len(self.pending)))]
        self.pending_since = time.monotonic()
        return taken

    def unsent(self, settlements: list[tuple[Delivery, Outcome]]) -> None:
        """Put settlements back whose call was not answered; the script carries out each only once."""
        self.pending.extendleft(reversed(settlements))


@dataclass(frozen=True)
class Turn:
    """Describe one call of turn.lua: for which queue, with how much room, settling what."""

    hold: Hold
    credit: int
    free_slots: int
    settlements: list[tuple[Delivery, Outcome]]
    #: When it was asked, ms by this host's clock; None where it waits at the server before it is carried out.
    asked_ms: int | None = field(default_factory=lambda: int(time.time() * 1000))
    #: The name under which it was asked.
    consumer: str = ""
