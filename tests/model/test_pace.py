"""A pool's measured drain rate, and the bound in messages for a bound in time: the test moves the clock."""

from collections import deque
from itertools import count
from statistics import mean
from typing import Any

import pytest
from moved_clock import CLOCK

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from millpond.broker.publish import Accepted, Answer, Full, Late, publish

QUEUE = "mill"


class Pool:
    """Producers that press on a queue, and a pool that clears so many messages a second."""

    def __init__(self, store: Store, *, slots: int = 5, prefetch: int = 5) -> None:
        self.store, self.now = store, float(store.client.time()[0])
        self.lease = InFlightMessages().lease_on(QueueKeys(QUEUE, store.prefix))
        self.slots, self.prefetch = slots, prefetch
        self.accepted: dict[str, float] = {}
        self.waiting: deque[Any] = deque()
        self.running: deque[Any] = deque()
        #: When each task was accepted, and how long it waited to start.
        self.waits: list[tuple[float, float]] = []
        self._ids = count()
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds
        self.store.client.set(CLOCK, int(self.now * 1000))

    def press(self, messages: int) -> list[Answer]:
        """Offer so many messages."""
        offered = [self._message() for _ in range(messages)]
        outcomes = publish(self.store, offered, policy="reject")
        for outcome in outcomes:
            if isinstance(outcome, Accepted):
                self.accepted[outcome.id] = self.now
        return outcomes

    def _message(self, deadline_ms: int | None = None) -> object:
        ms = int(self.now * 1000)
        return compose(
            "model.task", {}, queue=QUEUE, sent_at_ms=ms, id=f"t{next(self._ids)}", deadline_ms=deadline_ms
        )

    def send_by(self, seconds: float) -> Answer:
        """Send one message with a deadline."""
        [outcome] = publish(self.store, [self._message(int((self.now + seconds) * 1000))])
        return outcome

    def turn(self, finished: int = 0) -> None:
        """Settle the oldest tasks that run and fetch for the room there is."""
        for _ in range(min(finished, len(self.running))):
            self.lease.queue_outcome(self.running.popleft(), SUCCEEDED)
        self._start()
        held = len(self.lease.in_flight)
        turn = FetchRequest(
            self.lease,
            self.slots + self.prefetch - held,
            max(0, self.slots - held),
            self.lease.take_outcomes(9),
        )
        reply = fetch_call.call_and_wait(self.store, turn, lease_ms=10**9)
        fetch_call.accept_messages(self.lease, reply, lambda *_: None)
        known = {*self.running, *self.waiting}
        self.waiting.extend(each for each in self.lease.in_flight.values() if each not in known)
        self._start()

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            delivery = self.waiting.popleft()
            self.running.append(delivery)
            accepted = self.accepted[delivery.message.id]
            self.waits.append((accepted, self.now - accepted))

    def run(self, seconds: float, *, per_second: float, pressed: bool = True) -> None:
        """Work at this speed, with producers that refill the queue after each task."""
        until = self.now + seconds
        while pressed and all(isinstance(outcome, Accepted) for outcome in self.press(100)):
            pass
        while self.now < until:
            if pressed:
                self.press(3)
            self.pass_time(1 / per_second)
            self.turn(finished=1)

    def waits_of(self, since: float) -> list[float]:
        """Return the waits of the tasks accepted since then."""
        return [wait for accepted, wait in self.waits if accepted >= since]

    @property
    def bound(self) -> int:
        """Return the bound in messages."""
        return limits.read_limits(self.store, QUEUE).bound


@pytest.fixture
def pool(store: Store, clock: None) -> Pool:
    limits.declare_limits(store, QUEUE, {"bound": "30s"}, authoritative=True)
    return Pool(store)


@pytest.mark.parametrize(("before", "after"), [(10.0, 1.0), (1.0, 10.0)])
def test_a_bound_as_a_time_follows_the_pool(pool: Pool, before: float, after: float) -> None:
    """Within 30 s after a tenfold change of speed, a bound given as a time is right again.

    Once the earlier tasks are cleared, accepted tasks wait for 30 s, give or take 30%.
    """
    pool.run(30, per_second=before)
    assert pool.bound == pytest.approx(30 * before - 10, rel=0.3)
    changed = pool.now
    pool.run(30, per_second=after)
    assert pool.bound == pytest.approx(30 * after - 10, rel=0.3, abs=5)
    while pool.store.client.llen(pool.store.prefix + QUEUE) > pool.bound:
        pool.run(5, per_second=after, pressed=False)
    settled = pool.now
    pool.run(45, per_second=after)
    waits = pool.waits_of(settled)
    assert len(waits) > 10
    assert all(21 <= wait <= 39 for wait in waits), (min(waits), mean(waits), max(waits), settled - changed)


def test_the_bound_starts_at_a_hundred(pool: Pool) -> None:
    """Before anything was measured a time is worth 100 messages."""
    assert pool.bound == 100
    assert sum(isinstance(outcome, Accepted) for outcome in pool.press(200)) == 100


def test_an_idle_pool_is_not_taken_for_a_slow_one(pool: Pool) -> None:
    """A trickle that leaves slots idle does not lower the bound of a pool that was measured at work."""
    pool.run(20, per_second=10)
    busy = pool.bound
    while pool.running:
        pool.turn(finished=1)
    for _ in range(20):
        pool.press(1)
        pool.turn()
        pool.pass_time(1)
        pool.turn(finished=1)
    assert pool.bound >= busy


def test_a_bound_that_starves_the_pool_grows(pool: Pool) -> None:
    """A pool so fast that its queue runs empty while producers are refused gets a higher bound."""
    pool.run(60, per_second=0.5)
    small = pool.bound
    for _ in range(25):
        pool.press(200)
        for _ in range(20):
            pool.turn(finished=5)
        pool.pass_time(1)
    assert pool.bound > 10 * small


def test_a_full_queue_says_when_to_come_back(pool: Pool) -> None:
    """A refused task comes with the measured rate."""
    pool.run(20, per_second=10)
    full = pool.press(5)[-1]
    assert isinstance(full, Full)
    assert full.per_second == pytest.approx(10, rel=0.2)


def test_a_deadline_that_cannot_be_met_is_refused(pool: Pool) -> None:
    """A task whose turn comes after its deadline is refused at once, with the wait."""
    pool.run(20, per_second=10)
    pool.turn()
    late, in_time = pool.send_by(5), pool.send_by(60)
    assert isinstance(late, Late)
    assert late.wait_ms == pytest.approx(30_000, rel=0.2)
    assert isinstance(in_time, Accepted | Full)
    assert isinstance(pool.send_by(-1), Late)
