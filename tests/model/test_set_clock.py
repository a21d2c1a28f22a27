"""The server's clock is set, by a second, a minute and an hour, back and forth, while work is under way."""

from collections.abc import Iterator
from typing import Any

import pytest
from moved_clock import CLOCK

from millpond.broker import limits, publish
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED, PutAside
from millpond.broker.outgoing import compose
from millpond.broker.schedules import take_lead
from millpond.broker.scripts import script
from millpond.broker.stats import history

QUEUE, LEASE_MS, LOOK_MS = "set", 15_000, 1_000
STEPS = [sign * ms for ms in (1_000, 60_000, 3_600_000) for sign in (1, -1)]


class Mill:
    """One queue, its consumers by name, and the clock of its server."""

    def __init__(self, store: Store) -> None:
        self.store, self.keys = store, QueueKeys(QUEUE, store.prefix)
        self.leases: dict[str, QueueLease] = {}
        self.now = store.client.time()[0] * 1000
        self.pass_ms(0)

    def pass_ms(self, ms: int) -> None:
        """Move the clock."""
        self.now += ms
        self.store.client.set(CLOCK, self.now)

    def send(self, count: int) -> None:
        """Publish some messages."""
        made = [compose("any", {"n": n}, queue=QUEUE, sent_at_ms=self.now) for n in range(count)]
        publish.publish(self.store, made)

    def turn(self, name: str, credit: int = 0, *, kinds: str = "") -> int:
        """Make a call of a consumer; return how many messages it has in flight."""
        lease = self.leases.setdefault(name, QueueLease(self.keys, name, kinds=kinds))
        request = FetchRequest(lease, credit, credit, lease.take_outcomes())
        reply = fetch_call.call_and_wait(self.store, request, lease_ms=LEASE_MS)
        assert reply.lease, f"{name} has lost its lease"
        fetch_call.accept_messages(lease, reply, lambda *_: None)
        return len(lease.in_flight)

    def renew(self, name: str) -> bool:
        """Renew a lease."""
        return bool(script("renew_lease").run(self.store.client, self.keys.for_scripts, (name, LEASE_MS)))

    def counter(self, name: str) -> int:
        """Return a counter of the queue."""
        return inspect_depth.read_depth(self.store, QUEUE).counters.get(name, 0)


@pytest.fixture
def mill(store: Store, clock: None) -> Mill:
    return Mill(store)


@pytest.fixture(params=STEPS, ids=lambda ms: f"{ms // 1000:+d}s")
def step(request: pytest.FixtureRequest) -> Iterator[Any]:
    return request.param


def test_living_workers_keep_what_they_have_in_flight(mill: Mill, step: int) -> None:
    """No lease of a worker that renews it is lost, for every order of calls after the step."""
    mill.send(4)
    mill.turn("idle")
    assert mill.turn("busy", 4) == 4
    mill.pass_ms(4_000)
    mill.turn("idle")
    mill.pass_ms(step)
    for _ in range(5):  # the last renewal was four seconds ago: the next is in one
        mill.pass_ms(LOOK_MS)
        assert mill.turn("idle", 4) == 0
    assert mill.renew("busy")
    assert mill.counter("leases_lost") == 0


def test_a_small_step_leaves_a_late_renewal_its_time(mill: Mill) -> None:
    """A step of less than half a lease is noticed too: a worker on a busy machine renews late."""
    mill.send(4)
    mill.turn("idle")
    assert mill.turn("busy", 4) == 4
    for _ in range(4):
        mill.pass_ms(LOOK_MS)
        mill.turn("idle")
    mill.pass_ms(6_000)
    for _ in range(6):
        mill.pass_ms(LOOK_MS)
        assert mill.turn("idle", 4) == 0
    assert mill.renew("busy")
    assert mill.counter("leases_lost") == 0


def test_messages_of_a_dead_worker_are_back_in_time(mill: Mill, step: int) -> None:
    """After any step a lease that is not renewed lasts for its time, a third of it and a margin."""
    mill.send(4)
    mill.turn("living")
    mill.turn("dead", 4)
    mill.pass_ms(2_000)
    mill.turn("living")
    mill.pass_ms(step)
    waited = 0
    while not mill.turn("living", 4):
        mill.pass_ms(LOOK_MS)
        waited += LOOK_MS
        assert waited <= LEASE_MS + LEASE_MS // 3 + 500 + 2 * LOOK_MS
    assert mill.counter("redelivered") == 4


def test_a_rate_goes_on(mill: Mill, step: int) -> None:
    """A rate of ten a second stays so after the step; a burst at most comes with it."""
    limits.change_limits(mill.store, QUEUE, rate=10, burst=10)
    mill.send(100)
    mill.turn("one", 10)
    mill.pass_ms(step)
    before = mill.turn("one", 100)
    assert before <= 10 + 10
    for _ in range(4):
        mill.pass_ms(500)
        mill.turn("one", 100)
    assert mill.turn("one", 100) - before == pytest.approx(20, abs=1)


def test_room_that_was_granted_is_not_kept_for_ever(mill: Mill, step: int) -> None:
    """The grant of a killed producer keeps others out for two seconds, not for the length of the step."""
    limits.change_limits(mill.store, QUEUE, bound=2)
    mill.send(2)
    asked = [compose("any", {}, queue=QUEUE, sent_at_ms=mill.now)]
    publish.publish(mill.store, asked, policy="block", caller=publish.Caller("1.killed", stays=True))
    mill.turn("one", 2)
    mill.leases["one"].queue_outcome(next(iter(mill.leases["one"].in_flight.values())), SUCCEEDED)
    mill.turn("one")
    mill.pass_ms(step)
    mill.turn("one")
    mill.pass_ms(2_500)
    mill.turn("one")
    answers = publish.publish(mill.store, asked * 2, policy="reject")
    assert [type(each) for each in answers] == [publish.Accepted, publish.Accepted]


def test_a_scheduler_takes_over_from_a_dead_one(mill: Mill) -> None:
    """The lease of a leader that died before the clock was set back ends like any other."""
    assert take_lead(mill.store, "dead", lease_ms=3_600_000)  # as long as the clock went back
    assert not take_lead(mill.store, "next", lease_ms=20)
    assert mill.store.client.pttl(f"{mill.store.prefix}millpond:scheduler") <= 20


def test_an_unknown_kind_is_kept_while_somebody_has_it(mill: Mill, step: int) -> None:
    """A step makes no dead letter of a message put aside while a living consumer has its kind and no room."""
    mill.send(1)
    mill.turn("knows", kinds="\nany\n")
    mill.turn("not", 1, kinds="\nother\n")
    [delivery] = mill.leases["not"].in_flight.values()
    mill.leases["not"].queue_outcome(delivery, PutAside("any", "unknown kind", mill.now + 30_000))
    mill.pass_ms(1_000)
    mill.turn("not")
    mill.pass_ms(step)
    mill.turn("not", 1)
    assert mill.counter("dead") == 0
    assert mill.turn("knows", 1) == 1


def test_a_bound_given_as_a_time_is_measured_again(mill: Mill, step: int) -> None:
    """The pool's speed is measured again within a minute after the step."""
    limits.declare_limits(mill.store, QUEUE, {"bound": "30s"}, authoritative=True)
    for second in range(90):
        if second == 20:
            mill.pass_ms(step)
        mill.send(10)
        mill.turn("one", 10)
        for delivery in list(mill.leases["one"].in_flight.values()):
            mill.leases["one"].queue_outcome(delivery, SUCCEEDED)
        mill.pass_ms(1_000)
    mill.turn("one")
    rate = float(mill.store.client.hget(mill.keys.drain_rate, "rate"))
    assert rate == pytest.approx(10, rel=0.2)


def test_the_history_begins_anew_after_the_clock_was_set_back(store: Store) -> None:
    """Samples of the future are dropped with the next sample; no rate is computed with them."""
    limits.change_limits(store, QUEUE, bound=10)
    key = f"{store.prefix}millpond:samples:queue:{QUEUE}"
    store.client.xadd(key, {"values": "{}"}, id=f"{(store.client.time()[0] + 3_600) * 1000}-0")
    history.write_samples(store)
    [samples] = history.HistoryCache(store).samples([f"queue:{QUEUE}"])
    assert len(samples) == 1
    assert abs(samples[0].at_ms / 1000 - store.client.time()[0]) < 60
