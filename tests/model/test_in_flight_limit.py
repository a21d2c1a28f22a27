"""The messages in flight that are kept under a limit, beside an older worker, which keeps none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moved_clock import CLOCK

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.scripts import script
from tests.harness.manual_consumer import ManualConsumer

QUEUE, LIMIT = "mill", 4


@pytest.fixture
def consumers(store: Store, clock: None) -> tuple[ManualConsumer, ManualConsumer]:
    """Return a worker of this version and one of the last, on a queue with a limit and a backlog."""
    now = store.client.time()[0] * 1000
    store.client.set(CLOCK, now)
    limits.change_limits(store, QUEUE, in_flight=LIMIT)
    publish(store, [compose("any", {"n": n}, queue=QUEUE, sent_at_ms=now) for n in range(20)])
    return ManualConsumer(store, QUEUE), ManualConsumer(store, QUEUE)


@contextmanager
def of_old(store: Store) -> Iterator[None]:
    """Leave the kept number of permits unchanged, as the scripts of the last version do."""
    key = QueueKeys(QUEUE, store.prefix).drain_rate
    kept = store.client.hget(key, "flying")
    yield
    store.client.hdel(key, "flying")
    if kept is not None:
        store.client.hset(key, "flying", kept)


def test_messages_that_an_old_worker_fetches_count_at_once(
    store: Store, consumers: tuple[ManualConsumer, ManualConsumer]
) -> None:
    """The limit is never exceeded, in any order of fetches by the two workers."""
    new, old = consumers
    for _ in range(4):
        new.fetch(1)
        with of_old(store):
            old.fetch(1)
        new.fetch(LIMIT)
        assert len(new.lease.in_flight) + len(old.lease.in_flight) == LIMIT
        new.settle(SUCCEEDED)
        with of_old(store):
            old.settle(SUCCEEDED)
        store.client.incrby(CLOCK, 1_500)


def test_messages_that_an_old_worker_settles_count_within_a_second(
    store: Store, consumers: tuple[ManualConsumer, ManualConsumer]
) -> None:
    """Permits of messages that an old worker settles are free within a second, although it reports none."""
    new, old = consumers
    with of_old(store):
        old.fetch(3)
    new.fetch(LIMIT)
    with of_old(store):
        old.settle(SUCCEEDED)
    store.client.incrby(CLOCK, 1_001)
    assert len(new.fetch(LIMIT)) == LIMIT


def test_released_messages_count_at_once(
    store: Store, consumers: tuple[ManualConsumer, ManualConsumer]
) -> None:
    """The permits of a worker that ends are free for the others' next call."""
    new, other = consumers
    other.fetch(3)
    new.fetch(LIMIT)
    script("end_lease").run(store.client, other.lease.keys.for_scripts, (other.lease.consumer,))
    assert len(new.fetch(LIMIT)) == LIMIT
