"""Lose the replies of turns, and look for the messages that they fetched."""

from types import SimpleNamespace

from broker import publishing, status, turns
from broker.connection import Store
from broker.holding import Holder, Turn
from broker.intake import Intake
from broker.keys import QueueKeys
from broker.messages import compose
from broker.scripts import script

LEASE_MS = 60_000


def send(store: Store, count: int) -> None:
    """Publish some messages."""
    messages = [compose("test.kind", {"n": n}, queue="lost", sent_at_ms=0) for n in range(count)]
    publishing.publish(store, messages)


def turn_without_reply(store: Store, holder: Holder) -> None:
    """Let the server carry out a turn whose reply does not arrive."""
    turn = Turn(holder.hold(QueueKeys("lost", store.prefix)), 5, 5, [])
    words = turns.command(turn, lease_ms=LEASE_MS)
    keys = words[3 : 3 + words[2]]
    script("turn").run(store.client, keys, words[3 + len(keys) :])


def start(store: Store, holder: Holder) -> None:
    """Consume the queue, as after a lost connection."""
    channel = SimpleNamespace(store=store, _create_client=lambda **_: None)
    Intake(channel, holder, lease_ms=LEASE_MS).start(QueueKeys("lost", store.prefix))


def test_what_the_first_reply_brought_goes_back_when_it_is_lost(store: Store) -> None:
    """A consumer whose very first turn was carried out and not answered does not sit on what it fetched."""
    send(store, 3)
    holder = Holder()
    turn_without_reply(store, holder)
    assert status.depth(store, "lost").held == 3
    start(store, holder)
    depth = status.depth(store, "lost")
    assert (depth.ready, depth.held) == (3, 0)
