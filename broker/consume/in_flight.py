"""The messages that a process or a channel has fetched and not settled, of all its queues.

In `millpond worker` there is one `InFlightMessages` for a process. It outlives connections and channels, so a
task that was fetched on a connection which is lost is settled on the next one. Every other channel has its
own. Threads of slots append finished deliveries, the thread that renews the leases sets flags, and only the
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
from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.control.state import ControlState
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.outcomes import Outcome, Release
from millpond.broker.server import elapsed_seconds

#: If this many deliveries have finished and were not sent to the broker, threads wait before they start
#: another task. So at most this many and one for each slot run again after a kill.
MAX_UNSETTLED = 16

#: The maximum of messages of one call.
MAX_FETCH = 1_000

#: The slots of a channel without a limit of messages in flight.
UNLIMITED = 1_000_000

#: All instances of this process. A forked child must not fetch, renew or settle their messages.
_of_this_process = WeakSet["InFlightMessages"]()


def _forget_all() -> None:
    for in_flight in _of_this_process:
        in_flight.forget_all()


os.register_at_fork(after_in_child=_forget_all)


class InFlightMessages:
    """The registry of a process or a channel: a lease for each queue, one credit of `slots` + `prefetch`.

    `of_channel` is True for a channel. Its user starts no tasks, so cancellations and drained pools do not
    concern it.
    """

    #: True if this process ends.
    draining = False
    #: The cancellations and drained pools that this process knows.
    control = ControlState()
    #: The pools to which this process belongs.
    pools: tuple[str, ...] = ()
    #: True if all these pools are drained: running tasks are finished, and nothing is started.
    drained = False
    #: True if this process ends, or its pools are drained.
    starts_nothing = False
    #: The maximum of messages that one call fetches.
    max_fetch = MAX_FETCH
    #: The order in which queues are fetched from: `round_robin`, or one of kombu's others: `priority` (in the
    #: order in which they were first consumed) and `sorted` (by name).
    queue_order = "round_robin"
    #: The number of calls so far.
    fetch_calls = 0
    #: The thread that renews the leases, once there are any, and the fetcher in use.
    lease_renewer: Any = None
    fetcher: Any = None
    #: True once the event loop is to send the finished deliveries.
    _is_settling_planned = False
    _kinds = ""

    def __init__(self, *, prefetch: int = 0, pools: tuple[str, ...] = (), of_channel: bool = False) -> None:
        self.of_channel = of_channel
        self.pools = pools
        self.slots = UNLIMITED if of_channel else 1
        self.prefetch = prefetch
        #: How much of the prefetch is in use, learned from the rate at which tasks end here.
        self.learned_prefetch = Prefetch()
        self.leases: dict[str, QueueLease] = {}
        #: Queue -> the term of a lease on it. Queues with the usual term are not in it.
        self.lease_terms_ms: Mapping[str, int] = {}
        #: Deliveries that have ended, with their outcomes. Slots append, and `settle_finished` empties it.
        self.finished: deque[tuple[Delivery, Outcome]] = deque()
        #: Set whenever outcomes were taken to be sent. Threads wait for it if too many are unsettled.
        self.outcomes_taken = threading.Event()
        #: Calls a function soon in the event loop; None if there is no loop, as with greenlets.
        self._call_soon: Callable[[Callable[[], None]], Any] | None = None
        self._settle_now: Callable[[], None] = self.settle_finished
        #: Taken by a thread that settles outside the event loop, while the pool drains.
        self.lock = threading.RLock()
        #: The receiver of deliveries; None if kombu's consumer receives them.
        self.receive: Callable[[Delivery], None] | None = None
        #: Dead-letters a delivery for a reason and an error; None if no result backend is to be notified.
        self.dead_letter: Callable[[Delivery, str, object], None] | None = None
        #: Called after a change of the control state, with a function that acknowledges it. It drops the
        #: cancelled tasks that have not started, then calls that function.
        self.on_control: Callable[[Callable[[], None]], None] = lambda acknowledge: acknowledge()
        #: For `worker_disable_prefetch`: one message is fetched at a time, and only if this returns True.
        self.may_fetch: Callable[[], bool] | None = None
        #: The queues with a lease, in the order of the next fetches under `round_robin`.
        self.fetch_order: deque[str] = deque()
        self._consumer_numbers = itertools.count()
        _of_this_process.add(self)

    # The state of this process

    def forget_all(self) -> None:
        """Forget all messages, in a forked child: they belong to its parent."""
        for lease in self.leases.values():
            lease.lease_lost = True  # so that none of its deliveries, of which others may know, starts here
            lease.in_flight.clear()
            lease.outcomes.clear()
        self.leases.clear()
        self.fetch_order.clear()
        self.finished.clear()
        self.lock = threading.RLock()  # the old one may be locked by a thread that the child does not have
        self.lease_renewer = self.fetcher = None
        self.__dict__.pop("name", None)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. `drained` and `starts_nothing` are derived from three of them."""
        super().__setattr__(name, value)
        if name in ("draining", "control", "pools"):
            self.drained = bool(self.pools) and self.control.drained.issuperset(self.pools)
            self.starts_nothing = self.draining or self.drained

    @cached_property
    def name(self) -> str:
        """Return the unique name of this process, which begins with its pools."""
        return f"{'+'.join(self.pools)}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    def new_consumer(self) -> str:
        """Return a new, unique name for a consumer of this process."""
        return f"{self.name}.{next(self._consumer_numbers)}"

    def announce_kinds(self, kinds: Iterable[str]) -> None:
        """Set the kinds that this process has. The next call announces them to the server.

        The process then receives messages of these kinds that other processes put aside.
        """
        self._kinds = "\n".join(("", *kinds, ""))
        for lease in self.leases.values():
            lease.kinds, lease.announced_by = self._kinds, ""

    @property
    def count(self) -> int:
        """Return the number of messages that are in flight and have no outcome yet."""
        return sum(len(lease.in_flight) for lease in self.leases.values())

    @property
    def fetched_and_settled(self) -> int:
        """Return the number of fetched plus the number of settled messages. It grows while work is done."""
        return sum(lease.fetched_and_settled for lease in tuple(self.leases.values()))

    @property
    def room(self) -> int:
        """Return the number of messages that this process may fetch now."""
        slots, prefetch = self.capacity
        return 0 if self.starts_nothing else max(0, slots + prefetch - self.count)

    @property
    def capacity(self) -> tuple[int, int]:
        """Return how many tasks can run at once, and how many messages may be fetched beyond these."""
        tasks = self.learned_prefetch.waiting_tasks
        usable_slots = None if tasks is None else tasks.usable_slots
        slots = self.slots if usable_slots is None else usable_slots(self.slots)
        return slots, int(min(self.slots + self.prefetch - slots, self.learned_prefetch.depth))

    @property
    def has_waiting(self) -> bool:
        """True if messages wait for a slot and may have to be released."""
        can_release = self.learned_prefetch.waiting_tasks is not None and not self.starts_nothing
        return can_release and self.count > self.capacity[0]

    def release_overdue(self, now: float) -> None:
        """Release the messages that wait for a slot if the first has waited too long (`Prefetch`)."""
        if now >= self.learned_prefetch.check_at and self.has_waiting:
            # Copies, because threads remove deliveries meanwhile.
            in_flight = [tuple(lease.in_flight.values()) for lease in self.leases.values()]
            self.learned_prefetch.release_overdue(in_flight, self.capacity[0], now)

    # Leases

    def lease_on(self, keys: QueueKeys) -> QueueLease:
        """Return the lease on a queue. If there is none, create it; the next call registers it."""
        if keys.queue not in self.leases:
            term_ms = self.lease_terms_ms.get(keys.queue, 0)
            self.leases[keys.queue] = QueueLease(
                keys, self.new_consumer(), kinds=self._kinds, own_term_ms=term_ms
            )
            self.fetch_order.append(keys.queue)
        return self.leases[keys.queue]

    def rename_consumer(self, lease: QueueLease, consumer: str) -> None:
        """Continue a lease under the new name of its consumer that the server has recorded."""
        with self.lock:
            lease.consumer, lease.registered, lease.lease_lost = consumer, True, False
            lease.leased_until = math.inf

    def replace_lost_lease(self, lease: QueueLease) -> None:
        """Begin a new lease on a queue in place of one that has expired."""
        lease.start_anew(self.new_consumer())

    def find_delivery(self, tag: str) -> Delivery | None:
        """Return the delivery in flight with this tag of kombu's, or None if there is none."""
        token, _, queue = tag.partition(" ")
        lease = self.leases.get(queue)
        return lease.in_flight.get(token) if lease is not None else None

    def may_start(self, delivery: Delivery) -> bool:
        """True if the process still starts tasks, the lease is in force, and the task is not cancelled."""
        lease = delivery.lease
        # After a process was frozen, its clock shows that the lease has expired before the server replies so.
        lost = delivery.lost or lease.lease_lost or elapsed_seconds() > lease.leased_until
        if self.starts_nothing or lost:
            return False
        return not self.control.cancelled or not self.is_cancelled(delivery)

    def is_cancelled(self, delivery: Delivery) -> bool:
        """True if the delivery's task or its batch was cancelled."""
        return _is_named(self.control.cancelled, delivery)

    def is_terminated(self, delivery: Delivery) -> bool:
        """True if the delivery's task or its batch was cancelled, and running tasks are to be terminated."""
        return _is_named(self.control.terminated, delivery)

    # Settling

    def settle_by(
        self, call_soon: Callable[[Callable[[], None]], Any] | None, settle_now: Callable[[], None]
    ) -> None:
        """Set how finished deliveries are settled: in the event loop, or by `settle_now` while it drains.

        `call_soon` calls a function soon in the event loop; it is None if there is no loop. Called again for
        each new connection, because the callback of the old connection may have been lost.
        """
        self._call_soon, self._settle_now, self._is_settling_planned = call_soon, settle_now, False

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery soon with others, or at once while draining. Any thread may call this."""
        self.finished.append((delivery, outcome))
        if self.draining:
            self._settle_now()
        elif self._call_soon is not None and not self._is_settling_planned:
            self._is_settling_planned = True
            self._call_soon(self._plan_settling)

    def _plan_settling(self) -> None:
        """Schedule the fetcher to send the finished deliveries a moment later. Runs in the event loop."""
        self._is_settling_planned = False
        if self.fetcher is not None:  # else the next fetcher settles them when it is created
            self.fetcher.wake()

    @property
    def has_too_many_unsettled(self) -> bool:
        """True if threads must wait, before they start another task, until outcomes have been sent."""
        return self._call_soon is not None and self.unsettled_count >= MAX_UNSETTLED

    def settle_finished(self) -> None:
        """Queue the outcomes of the finished deliveries, each on its lease, for the next call."""
        now, prefetch = monotonic(), self.learned_prefetch
        with suppress(IndexError):  # pop until it is empty: threads pop too, while the pool drains
            while True:
                delivery, outcome = ended = self.finished.popleft()
                lease = delivery.lease
                if lease is None or lease.in_flight.pop(delivery.token, None) is None:
                    continue  # it has an outcome already, or the lease was lost
                lease.fetched_and_settled += 1
                prefetch.ended += type(outcome) is not Release
                if not lease.outcomes:
                    lease.outcomes_since = now
                lease.outcomes.append(ended)

    def queue_outcome(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Queue the outcome of a delivery for the next call. Return False if it is not in flight here."""
        if delivery.lease is None or not delivery.lease.queue_outcome(delivery, outcome):
            return False
        self.learned_prefetch.ended += type(outcome) is not Release
        return True

    @property
    def unsettled_count(self) -> int:
        """The number of outcomes that were not sent. If this process is killed, the tasks run again."""
        return len(self.finished) + sum(len(lease.outcomes) for lease in tuple(self.leases.values()))


def _is_named(names: Set[str], delivery: Delivery) -> bool:
    """True if a delivery's task or batch is among these names."""
    message = delivery.message
    return message.id in names or batch_key(message.batch, delivery.lease.keys.prefix) in names
