"""Overflow policy `shed`, of a queue whose messages were put aside for consumers that have their kinds."""

import pytest

from millpond.broker import limits, publish
from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.outcomes import PutAside
from millpond.broker.outgoing import compose
from tests.harness.manual_consumer import ManualConsumer

QUEUE, BOUND, LATER_MS = "shedding", 3, 2**42


def send(store: Store, *kinds: str, priority: int = 0) -> list[str]:
    """Publish a message of each kind in one call, and return their ids."""
    messages = [compose(kind, {}, queue=QUEUE, sent_at_ms=0, priority=priority) for kind in kinds]
    answers = publish.publish(store, messages, policy="shed")
    assert {type(answer) for answer in answers} == {publish.Accepted}
    return [answer.id for answer in answers]


def waiting(store: Store) -> int:
    """Return the number of messages that count against the bound."""
    depth = inspect_depth.read_depth(store, QUEUE)
    return depth.ready + depth.delayed


@pytest.fixture
def put_aside(store: Store) -> list[str]:
    """Fill the queue with messages that no consumer has the kind of. Return their ids."""
    limits.change_limits(store, QUEUE, bound=BOUND)
    ids = send(store, "unknown", "other", priority=3) + send(store, "unknown")
    consumer = ManualConsumer(store, QUEUE)
    for n in range(BOUND):  # the one of priority 0 is fetched first, and its time is over last
        consumer.fetch()
        [delivery] = consumer.lease.in_flight.values()
        consumer.settle(PutAside(delivery.message.kind, "unknown kind", LATER_MS - n))
    assert waiting(store) == BOUND
    return ids


@pytest.mark.parametrize("together", [True, False])
def test_a_queue_of_messages_put_aside_keeps_its_bound(
    store: Store, put_aside: list[str], together: bool
) -> None:
    """Of the messages put aside, that whose time is over first is shed, until there are others to shed."""
    for kinds in [("known",) * 4] if together else [("known",)] * 4:
        send(store, *kinds)
        assert waiting(store) == BOUND
    shed = [(letter.task_id, letter.reason) for letter in dead_letters.read_dead_letters(store, QUEUE)]
    # After the first, the ready message is the one to shed.
    assert shed[0] == (put_aside[1], "shed")
    assert {id for id, _ in shed[1:]}.isdisjoint(put_aside)
    counters = inspect_depth.read_depth(store, QUEUE).counters
    assert (counters["shed"], counters["dead"], counters["high_water"]) == (4, 4, BOUND)


def test_all_messages_put_aside_can_be_shed(store: Store, put_aside: list[str]) -> None:
    """Nothing is left of the records of a message that was shed."""
    consumer = ManualConsumer(store, QUEUE)
    for bound in range(BOUND, 0, -1):
        limits.change_limits(store, QUEUE, bound=bound)
        send(store, "known")
        consumer.fetch()
    letters = dead_letters.read_dead_letters(store, QUEUE)
    assert sorted(letter.task_id for letter in letters) == sorted(put_aside)
    assert waiting(store) == 0
    assert not list(store.client.scan_iter(match="*:aside*"))
