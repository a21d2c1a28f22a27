"""Lose the replies of turns, and look for the messages that they fetched."""

from types import SimpleNamespace

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.fetcher import Intake
from millpond.broker.consume.in_flight import Holder
from millpond.broker.consume.queue_lease import Turn
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.message import compose
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.scripts import script

LEASE_MS = 60_000


def send(store: Store, count: int) -> None:
    """Publish some messages."""
    messages = [compose("test.kind", {"n": n}, queue="lost", sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)


def turn_without_reply(store: Store, holder: Holder) -> None:
    """Let the server carry out a turn whose reply does not arrive."""
    turn = Turn(holder.hold(QueueKeys("lost", store.prefix)), 5, 5, [])
    words = fetch_call.command(turn, lease_ms=LEASE_MS)
    keys = words[3 : 3 + words[2]]
    script("turn").run(store.client, keys, words[3 + len(keys) :])


def start(store: Store, holder: Holder) -> Intake:
    """Consume the queue, as after a lost connection, on one that takes commands and never answers."""
    silent = SimpleNamespace(send_command=lambda *_: None)
    cycle = SimpleNamespace(connected=lambda *_: silent)
    channel = SimpleNamespace(
        store=store,
        _create_client=lambda **_: None,
        connection=SimpleNamespace(cycle=cycle),
        global_keyprefix=store.prefix,
        socket_timeout=5,
    )
    intake = Intake(channel, holder, lease_ms=LEASE_MS)
    intake.start(QueueKeys("lost", store.prefix))
    return intake


def test_what_the_first_reply_brought_goes_back_when_it_is_lost(store: Store) -> None:
    """A consumer whose very first turn was carried out and not answered does not sit on what it fetched."""
    send(store, 3)
    holder = Holder()
    turn_without_reply(store, holder)
    assert inspect_depth.depth(store, "lost").in_flight == 3
    start(store, holder)
    depth = inspect_depth.depth(store, "lost")
    assert (depth.ready, depth.in_flight) == (3, 0)


def test_a_turn_that_arrives_after_its_connection_was_given_up_fetches_nothing(store: Store) -> None:
    """A turn of a lost connection that the server sees late is nobody's, and fetches nothing."""
    holder = Holder()
    hold = holder.hold(QueueKeys("lost", store.prefix))
    send(store, 1)
    fetch_call.accept(hold, fetch_call.call(store, Turn(hold, 1, 1, []), lease_ms=LEASE_MS), lambda *_: None)
    late = Turn(hold, 5, 5, [])
    words = fetch_call.command(late, lease_ms=LEASE_MS)
    start(store, holder)
    send(store, 3)
    keys = words[3 : 3 + words[2]]
    reply = fetch_call.read(script("turn").run(store.client, keys, words[3 + len(keys) :]))
    assert (reply.lease, reply.messages) == (False, [])
    depth = inspect_depth.depth(store, "lost")
    assert (depth.ready, depth.in_flight, depth.consumers) == (3, 1, 1)


def test_what_was_held_is_settled_after_the_connection_was_lost(store: Store) -> None:
    """A message fetched before a lost connection is this consumer's after it, and settled by it."""
    holder = Holder()
    hold = holder.hold(QueueKeys("lost", store.prefix))
    send(store, 1)
    fetch_call.accept(hold, fetch_call.call(store, Turn(hold, 1, 1, []), lease_ms=LEASE_MS), lambda *_: None)
    start(store, holder)
    [token] = hold.held
    holder.settle(hold.held[token], SUCCEEDED)
    fetch_call.settle_pending(store, holder, lease_ms=LEASE_MS)
    depth = inspect_depth.depth(store, "lost")
    assert (depth.in_flight, depth.counters["settled"], hold.late) == (0, 1, 0)


def test_what_a_lost_turn_was_to_settle_is_settled_by_the_next(store: Store) -> None:
    """A task whose settlement was on its way as the connection was lost does not run again."""
    holder = Holder()
    hold = holder.hold(QueueKeys("lost", store.prefix))
    send(store, 1)
    fetch_call.accept(hold, fetch_call.call(store, Turn(hold, 1, 1, []), lease_ms=LEASE_MS), lambda *_: None)
    first = start(store, holder)
    [token] = hold.held
    holder.settle(hold.held[token], SUCCEEDED)
    first.on_tick()
    assert not hold.pending, "the settlement is under way"
    start(store, holder)
    fetch_call.settle_pending(store, holder, lease_ms=LEASE_MS)
    depth = inspect_depth.depth(store, "lost")
    assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (0, 0, 1)


def test_what_the_loop_was_about_to_settle_is_settled_after_the_connection_was_lost(store: Store) -> None:
    """The loop forgets its callbacks with a lost connection; a task that had ended is settled."""
    holder = Holder()
    hold = holder.hold(QueueKeys("lost", store.prefix))
    send(store, 1)
    fetch_call.accept(hold, fetch_call.call(store, Turn(hold, 1, 1, []), lease_ms=LEASE_MS), lambda *_: None)
    start(store, holder)
    holder.finish(next(iter(hold.held.values())), SUCCEEDED)
    start(store, holder)
    fetch_call.settle_pending(store, holder, lease_ms=LEASE_MS)
    depth = inspect_depth.depth(store, "lost")
    assert (depth.in_flight, depth.counters["settled"]) == (0, 1)
