"""Know what this process holds: the messages it has fetched and not settled, and the settlements still
to be sent.

One `Holder` lives as long as the worker process: connections and channels come and go under it, so that
a task which was fetched before a lost connection is settled after it. Only the event loop changes it;
the thread that renews leases sets flags.
"""

import itertools
import math
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any
from uuid import uuid4

from millpond.broker.consume.queue_lease import Hold, Turn
from millpond.broker.control.state import ControlState
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.outcomes import Outcome
from millpond.broker.server import elapsed_seconds

#: Settlements that are gathered before they are sent although more work is at hand, and how long one
#: waits at most.
GATHERED = 8
GATHERED_SECONDS = 0.005

#: How long a process relies on what it knows of the server's clock.
CLOCK_GOOD_SECONDS = 10.0


class Holder:
    """Hold the messages of one worker process.

    Of all its queues, under one credit of `slots` + `prefetch`.
    """

    def __init__(self, *, prefetch: int = 0, pools: tuple[str, ...] = ()) -> None:
        self.slots = 1
        self.prefetch = prefetch
        self.holds: dict[str, Hold] = {}
        #: Set whenever settlements were taken to be sent; threads that are far ahead wait for it.
        self.caught_up = threading.Event()
        self.draining = False
        #: Round trips that fetched and settled.
        self.turns = 0
        #: Held by whoever settles outside the event loop, while the pool drains.
        self.lock = threading.RLock()
        #: The thread that renews the leases, once there are any, and the intake in use.
        self.keeper: Any = None
        self.intake: Any = None
        #: What this process knows of cancellations and drained pools.
        self.news = ControlState()
        #: Called when there is more to know: whoever has not started what is cancelled gives it up, then
        #: calls what it is given.
        self.on_news: Callable[[Callable[[], None]], None] = lambda confirm: confirm()
        #: The pools that this process is of.
        self.pools = pools
        self._names = itertools.count()
        self._kinds = ""
        self._order: deque[str] = deque()
        self._finished: dict[Delivery, Outcome] = {}
        self.on_lost: Callable[[Hold], None] | None = None

    # The consuming side

    def hold(self, keys: QueueKeys) -> Hold:
        """Return what is held of a queue, starting with nothing."""
        if keys.queue not in self.holds:
            self.holds[keys.queue] = Hold(keys, self.new_consumer(), kinds=self._kinds)
            self._order.append(keys.queue)
        return self.holds[keys.queue]

    def announce(self, kinds: Iterable[str]) -> None:
        """Name the kinds that this process can run: it takes these where others put them aside."""
        self._kinds = "\n".join(("", *kinds, ""))
        for hold in self.holds.values():
            hold.kinds, hold.announced = self._kinds, ""

    @cached_property
    def name(self) -> str:
        """Name this process, its pools first, as no other was ever named."""
        return f"{'+'.join(self.pools)}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    @property
    def epoch(self) -> int:
        """Return the epoch of what this process knows."""
        return self.news.epoch

    @property
    def drained(self) -> bool:
        """Say whether somebody drained the pool: what runs is finished, and nothing is started."""
        return bool(self.pools) and self.news.drained.issuperset(self.pools)

    @property
    def starts_nothing(self) -> bool:
        """Say whether this process ends, or its pool is drained."""
        return self.draining or self.drained

    def __json__(self) -> dict[str, int]:
        """Describe this process in `celery inspect stats`, which lists the transport's options."""
        return {"slots": self.slots, "prefetch": self.prefetch, "held": self.count}

    @property
    def count(self) -> int:
        """Count the messages that this process holds and has not finished."""
        return sum(len(hold.held) for hold in self.holds.values())

    @property
    def moves(self) -> int:
        """Count the messages that were fetched and settled so far, each of both."""
        return sum(hold.moves for hold in tuple(self.holds.values()))

    @property
    def room(self) -> int:
        """Count the messages that this process may fetch now."""
        return 0 if self.starts_nothing else max(0, self.slots + self.prefetch - self.count)

    def next_turn(self, active: set[str], now: float) -> Turn | None:
        """Choose the queue whose turn it is, or None when there is nothing to send now.

        Queues take turns. Settlements wait a moment for company, unless a slot is about to be free.
        """
        for _ in range(len(self._order)):
            hold = self.holds[self._order[0]]
            self._order.rotate(-1)
            if hold.lease_lost:
                self.lost(hold)
            if hold.look_at and now >= hold.look_at:
                hold.hungry, hold.look_at = True, 0.0
            room = self.room if hold.queue in active and hold.hungry else 0
            if self._is_time(hold, room, now):
                free = max(0, self.slots - self.count) if room else 0
                turn = Turn(hold, room, free, hold.settlements(100))
                self.caught_up.set()
                return turn
        return None

    def turn_behind_a_wait(self, active: set[str], until: float) -> Turn | None:
        """Return a turn that fetches when a wait ends, by `until` at the latest; None where it cannot be.

        It cannot with several queues, where a queue is to be looked at before, and where the server's
        clock, which only a turn that does not wait can tell, was not read for some seconds. Nor while no
        slot is free: under a limit it would fetch nothing, although slots may be free when the wait ends.
        """
        if len(active) != 1:
            return None
        hold = self.holds[next(iter(active))]
        is_known = hold.registered and not hold.lease_lost and until - hold.clocked_at < CLOCK_GOOD_SECONDS
        if not is_known or 0.0 < hold.look_at <= until or self.count >= self.slots:
            return None
        return Turn(hold, self.room, self.slots - self.count, [], None, hold.consumer)

    def _is_time(self, hold: Hold, room: int, now: float) -> bool:
        wants = room > 0 and self.count <= self.slots + self.prefetch // 2
        if not hold.pending:
            return wants
        return (
            wants
            or len(hold.pending) >= GATHERED
            or not self.count
            or self.draining
            or now - hold.pending_since >= GATHERED_SECONDS
        )

    def go_on_as(self, hold: Hold, consumer: str) -> None:
        """Hold what is held under another name, as the server does."""
        with self.lock:
            hold.consumer, hold.registered, hold.lease_lost = consumer, True, False
            hold.leased_until = math.inf

    def lost(self, hold: Hold) -> None:
        """Give up the lease of a queue that ran out."""
        hold.lose(self.new_consumer())
        if self.on_lost is not None:
            self.on_lost(hold)

    def new_consumer(self) -> str:
        """Return a name that no consumer has had."""
        return f"{self.name}.{next(self._names)}"

    # The finishing side

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Note how a delivery ended; the event loop is about to settle it. From any thread.

        Should the loop end before, or lose its connection, this is what is left to settle.
        """
        self._finished[delivery] = outcome

    @property
    def unsettled_count(self) -> int:
        """Count what has ended and was not sent to the broker: a kill now, and it runs again."""
        return len(self._finished) + sum(len(hold.pending) for hold in tuple(self.holds.values()))

    def settle_finished(self) -> None:
        """Settle what the event loop was about to."""
        for delivery in tuple(self._finished):
            outcome = self._finished.pop(delivery, None)
            if outcome is not None:
                self.settle(delivery, outcome)

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Settle a delivery; False when it is not held here."""
        return delivery.lease is not None and bool(delivery.lease.settle(delivery, outcome))

    def find(self, tag: str) -> Delivery | None:
        """Return a delivery that is held, by kombu's tag for it."""
        token, _, queue = tag.partition(" ")
        hold = self.holds.get(queue)
        return hold.held.get(token) if hold is not None else None

    def is_lost(self, delivery: Delivery) -> bool:
        """True if another consumer may have this message by now: it must not be started."""
        hold = delivery.lease
        # A process that was frozen knows by the clock what the server will tell it.
        return delivery.lost or hold.lease_lost or elapsed_seconds() > hold.leased_until

    def is_cancelled(self, delivery: Delivery) -> bool:
        """True if somebody cancelled this message's task or its batch."""
        return bool(self.news.cancelled) and self._is_in(self.news.cancelled, delivery)

    def is_terminated(self, delivery: Delivery) -> bool:
        """True if this message's task shall be ended where it runs."""
        return bool(self.news.terminated) and self._is_in(self.news.terminated, delivery)

    @staticmethod
    def _is_in(names: frozenset[str], delivery: Delivery) -> bool:
        message = delivery.message
        return message.id in names or batch_key(message.batch, delivery.lease.keys.prefix) in names
