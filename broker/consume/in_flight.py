"""The messages that a process or a channel has fetched and not settled, of all its queues.

The `InFlightMessages` of a worker of `millpond worker` live as long as its process: connections and channels
come and go under them, so that a task which was fetched before a lost connection is settled after it. Every
other channel has its own. Slots append finished deliveries, the thread of the leases sets flags, and only the
event loop changes the rest.
"""

import itertools
import math
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import Any
from uuid import uuid4
from weakref import WeakSet

from millpond.broker.consume.prefetch import Prefetch
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.control.state import ControlState
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.outcomes import Outcome, Release
from millpond.broker.server import elapsed_seconds

#: Outcomes that are gathered before they are sent although more work is at hand, and the longest time one
#: waits.
GATHERED = 8
GATHERED_SECONDS = 0.005

#: So much may be finished and not sent to the broker before threads wait. Each slot may finish one more by
#: then: no more than slots + 16 finished tasks run again after a kill, however many were fetched.
AHEAD = 16

#: The maximum of messages of one call.
AT_ONCE = 1_000

#: The slots of a channel that set no limit to its messages in flight.
UNLIMITED = 1_000_000

#: All instances of this process. A forked child must not fetch, renew or settle their messages.
_of_this_process = WeakSet["InFlightMessages"]()


def _forget_all() -> None:
    for each in _of_this_process:
        each.forget_all()


os.register_at_fork(after_in_child=_forget_all)


class InFlightMessages:
    """The registry of a process or a channel: a lease for each queue, one credit of `slots` + `prefetch`.

    Cancellations and drained pools hold for a worker process, not for the user of a channel (`of_channel`).
    """

    draining = False
    control = ControlState()
    pools: tuple[str, ...] = ()
    #: True once the pool was drained: running tasks are finished, and nothing is started.
    drained = False
    #: True if this process ends, or its pool is drained.
    starts_nothing = False

    def __init__(self, *, prefetch: int = 0, pools: tuple[str, ...] = (), of_channel: bool = False) -> None:
        self.of_channel = of_channel
        #: True if this process ends.
        self.draining = False
        #: The cancellations and drained pools that this process knows.
        self.control = ControlState()
        #: The pools that this process is of.
        self.pools = pools
        self.slots = UNLIMITED if of_channel else 1
        self.prefetch = prefetch
        #: How much of the prefetch is in use, learnt from the tasks that end here.
        self.ahead = Prefetch()
        #: The maximum of messages that one call fetches.
        self.at_once = AT_ONCE
        #: `round_robin`; or `priority` (the queues first consumed come first) or `sorted`, as kombu has them.
        self.queue_order = "round_robin"
        self.leases: dict[str, QueueLease] = {}
        #: Queue -> the term of a lease on it.
        self.lease_terms_ms: Mapping[str, int] = {}
        #: Deliveries that have ended, with their outcomes. Slots append, and `next_request` empties it.
        self.finished: deque[tuple[Delivery, Outcome]] = deque()
        #: Set whenever outcomes were taken to be sent. Threads that are far ahead wait for it.
        self.outcomes_taken = threading.Event()
        #: Calls a function soon in the event loop; None if there is no loop, as with greenlets.
        self._call_soon: Callable[[Callable[[], None]], Any] | None = None
        self._settle_now: Callable[[], None] = self.settle_finished
        #: True once the loop is to send the finished deliveries.
        self._is_asked = False
        #: Calls that fetched and settled.
        self.fetch_calls = 0
        #: Taken by a thread that settles outside the event loop, while the pool drains.
        self.lock = threading.RLock()
        #: The thread that renews the leases, once there are any, and the fetcher in use.
        self.lease_renewer: Any = None
        self.fetcher: Any = None
        #: The receiver of a delivery; None if it is kombu's consumer.
        self.receive: Callable[[Delivery], None] | None = None
        #: Called after a control change: it drops cancelled unstarted tasks, then calls its argument.
        self.on_control: Callable[[Callable[[], None]], None] = lambda confirm: confirm()
        #: For `worker_disable_prefetch`: one message is fetched at a time, and only while this is true.
        self.may_fetch: Callable[[], bool] | None = None
        self._names = itertools.count()
        self._kinds = ""
        self._order: deque[str] = deque()

        _of_this_process.add(self)

    # The state of this process

    def forget_all(self) -> None:
        """Forget everything, in a process that was forked: the messages are its parent's."""
        for lease in self.leases.values():
            lease.lease_lost = True  # none of its messages starts here, wherever else they are known
            lease.in_flight.clear()
            lease.outcomes.clear()
        self.leases.clear()
        self._order.clear()
        self.finished.clear()
        self.lock = threading.RLock()  # a thread that is not here may hold the parent's
        self.lease_renewer = self.fetcher = None
        self.__dict__.pop("name", None)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. After one that a drain depends on, decide again whether tasks are started."""
        super().__setattr__(name, value)
        if name in ("draining", "control", "pools"):
            self.drained = bool(self.pools) and self.control.drained.issuperset(self.pools)
            self.starts_nothing = self.draining or self.drained

    @cached_property
    def name(self) -> str:
        """Return the name of this process, its pools first, which no other ever had."""
        return f"{'+'.join(self.pools)}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    def new_consumer(self) -> str:
        """Return a name that no consumer has had."""
        return f"{self.name}.{next(self._names)}"

    def announce_kinds(self, kinds: Iterable[str]) -> None:
        """Set the kinds that this process can run. It takes messages of these that others put aside."""
        self._kinds = "\n".join(("", *kinds, ""))
        for lease in self.leases.values():
            lease.kinds, lease.announced = self._kinds, ""

    @property
    def count(self) -> int:
        """Count the messages that are in flight and have not finished."""
        return sum(len(lease.in_flight) for lease in self.leases.values())

    @property
    def fetched_and_settled(self) -> int:
        """Count the messages that were fetched and settled so far, each of both."""
        return sum(lease.fetched_and_settled for lease in tuple(self.leases.values()))

    @property
    def room(self) -> int:
        """Count the messages that this process may fetch now."""
        running, beyond = self.reach
        return 0 if self.starts_nothing else max(0, running + beyond - self.count)

    @property
    def reach(self) -> tuple[int, int]:
        """Return how many tasks run at a time, and how many messages may be fetched beyond these."""
        running = self.ahead.slots(self.slots)
        return running, self.ahead.allowed_count(self.slots + self.prefetch - running)

    @property
    def has_waiting(self) -> bool:
        """True if messages wait for a slot and may have to be released."""
        return self.ahead.line is not None and self.count > self.reach[0] and not self.starts_nothing

    def release_overdue(self, now: float) -> None:
        """Release the messages that wait for a slot if the first has waited too long (`Prefetch`)."""
        if now >= self.ahead.look_at and self.has_waiting:
            lines = [tuple(lease.in_flight.values()) for lease in self.leases.values()]  # threads settle
            self.ahead.release_overdue(lines, self.reach[0], now)

    # Leases

    def lease(self, keys: QueueKeys) -> QueueLease:
        """Return the lease on a queue, a new one the first time."""
        if keys.queue not in self.leases:
            term_ms = self.lease_terms_ms.get(keys.queue, 0)
            self.leases[keys.queue] = QueueLease(
                keys, self.new_consumer(), kinds=self._kinds, own_term_ms=term_ms
            )
            self._order.append(keys.queue)
        return self.leases[keys.queue]

    def resume_as(self, lease: QueueLease, consumer: str) -> None:
        """Rename the consumer of a lease and its messages, as the server did."""
        with self.lock:
            lease.consumer, lease.registered, lease.lease_lost = consumer, True, False
            lease.leased_until = math.inf

    def lose_lease(self, lease: QueueLease) -> None:
        """Give up a lease that expired."""
        lease.begin_anew(self.new_consumer())

    def find_delivery(self, tag: str) -> Delivery | None:
        """Return a delivery that is in flight, by kombu's tag for it."""
        token, _, queue = tag.partition(" ")
        lease = self.leases.get(queue)
        return lease.in_flight.get(token) if lease is not None else None

    def may_start(self, delivery: Delivery) -> bool:
        """True if the process still starts tasks, and the message is its own and not cancelled."""
        lease = delivery.lease
        # A process that was frozen knows by the clock that its lease expired, before the server says so.
        lost = delivery.lost or lease.lease_lost or elapsed_seconds() > lease.leased_until
        if self.starts_nothing or lost:
            return False
        return not self.control.cancelled or not self.is_cancelled(delivery)

    def is_cancelled(self, delivery: Delivery) -> bool:
        """True if somebody cancelled this message's task or its batch."""
        return _is_named(self.control.cancelled, delivery)

    def is_terminated(self, delivery: Delivery) -> bool:
        """True if this message's task must be ended even while it runs."""
        return _is_named(self.control.terminated, delivery)

    # Settling

    def settle_by(
        self, call_soon: Callable[[Callable[[], None]], Any] | None, settle_now: Callable[[], None]
    ) -> None:
        """Send outcomes by the event loop from now on, or by `settle_now` while the pool drains.

        Called again for each new connection: a callback in the loop may be lost with the one before.
        """
        self._call_soon, self._settle_now, self._is_asked = call_soon, settle_now, False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery soon, with others, or at once while draining. Any thread may call this."""
        self.finished.append((delivery, outcome))
        if self.draining:
            self._settle_now()
        elif self._call_soon is not None and not self._is_asked:
            self._is_asked = True
            self._call_soon(self._plan_settling)

    def _plan_settling(self) -> None:
        """Plan to send the finished deliveries a moment later. Runs in the loop."""
        self._is_asked = False
        if self.fetcher is not None:  # else the next one does it first of all
            self.fetcher.wake()

    @property
    def is_far_ahead(self) -> bool:
        """True if so much has finished and was not sent that threads shall wait for the event loop."""
        return self._call_soon is not None and self.unsettled_count >= AHEAD

    def settle_finished(self) -> None:
        """Queue the outcomes of finished deliveries, each for its queue."""
        now, ahead = monotonic(), self.ahead
        with suppress(IndexError):  # threads do this too, while the pool drains
            while True:
                delivery, outcome = ended = self.finished.popleft()
                lease = delivery.lease
                if lease is None or lease.in_flight.pop(delivery.token, None) is None:
                    continue  # it is settled
                lease.fetched_and_settled += 1
                ahead.ended += type(outcome) is not Release
                if not lease.outcomes:
                    lease.outcomes_since = now
                lease.outcomes.append(ended)

    def queue_outcome(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Queue the outcome of a delivery for the next call. Return False if it is not in flight here."""
        if delivery.lease is None or not delivery.lease.queue_outcome(delivery, outcome):
            return False
        self.ahead.ended += type(outcome) is not Release
        return True

    @property
    def unsettled_count(self) -> int:
        """Count the outcomes that were not sent to the broker: after a kill now, their tasks run again."""
        return len(self.finished) + sum(len(lease.outcomes) for lease in tuple(self.leases.values()))

    def next_request(self, active: set[str], now: float) -> FetchRequest | None:
        """Return the next call to send, with outcomes and room for more, or None if it is not time yet.

        Queues take turns. Outcomes wait a moment for company, unless a slot is about to be free, or messages
        wait for the permits that they free.
        """
        if self.finished:
            self.settle_finished()
        self.ahead.measure(now, is_full=self.count >= self.reach[0])
        for queue in self._queues_in_order(now):
            lease = self.leases[queue]
            if lease.lease_lost:
                self.lose_lease(lease)
            if lease.look_at and now >= lease.look_at:
                lease.fetchable, lease.look_at = True, 0.0
            asks = lease.fetchable or (lease.is_limited and bool(lease.outcomes))
            fetches = asks and lease.keys.queue in active and not self.starts_nothing
            if not (fetches or lease.outcomes):
                continue
            count = sum(len(each.in_flight) for each in self.leases.values())
            running, beyond = self.reach
            room = max(0, running + beyond - count) if fetches else 0
            if room and self.may_fetch is not None:
                room = 1 if self.may_fetch() else 0
            wants = room > 0 and count <= running + beyond // 2
            if wants or (lease.outcomes and self._is_time_to_send(lease, count, now)):
                free = max(0, running - count) if room else 0
                request = FetchRequest(lease, min(room, self.at_once), free, lease.take_outcomes())
                self.outcomes_taken.set()
                return request
        return None

    def _queues_in_order(self, now: float) -> Iterable[str]:
        """Yield the queues in the order in which they are looked at for a call."""
        if self.queue_order == "round_robin":
            for _ in range(len(self._order)):
                queue = self._order[0]
                self._order.rotate(-1)
                yield queue
            return
        # A first queue that always has messages must not keep the outcomes of the others here.
        overdue = [
            q for q in self._order if self.leases[q].outcomes and self._is_overdue(self.leases[q], now)
        ]
        yield from overdue
        yield from sorted(self._order) if self.queue_order == "sorted" else tuple(self._order)

    def _is_overdue(self, lease: QueueLease, now: float) -> bool:
        return now - lease.outcomes_since >= 2 * GATHERED_SECONDS

    def _is_time_to_send(self, lease: QueueLease, count: int, now: float) -> bool:
        waited = now - lease.outcomes_since >= GATHERED_SECONDS
        return waited or lease.is_limited or not count or self.draining or len(lease.outcomes) >= GATHERED


def _is_named(names: Set[str], delivery: Delivery) -> bool:
    """True if a delivery's task or batch is among these names."""
    message = delivery.message
    return message.id in names or batch_key(message.batch, delivery.lease.keys.prefix) in names
