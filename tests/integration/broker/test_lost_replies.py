"""Lose the replies of calls, and search for the messages that they fetched."""

from types import SimpleNamespace

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.fetcher import Fetcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from millpond.broker.scripts import script
from tests.harness.manual_consumer import LEASE_MS, ManualConsumer


def send(store: Store, count: int) -> None:
    """Publish some messages."""
    messages = [compose("test.kind", {"n": n}, queue="lost", sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)


def consumer_of_one(store: Store) -> tuple[InFlightMessages, QueueLease]:
    """Send a message; return the registry and the lease of a consumer that has fetched it."""
    consumer = ManualConsumer(store, "lost")
    send(store, 1)
    consumer.fetch()
    return consumer.in_flight, consumer.lease


def turn_without_reply(store: Store, in_flight: InFlightMessages) -> None:
    """Make the server carry out a call whose reply does not arrive."""
    turn = FetchRequest(in_flight.lease_on(QueueKeys("lost", store.prefix)), 5, 5, [])
    words = fetch_call.fetch_command(turn, lease_ms=LEASE_MS)
    keys = words[3 : 3 + words[2]]
    script("settle_and_fetch").run(store.client, keys, words[3 + len(keys) :])


def start(store: Store, in_flight: InFlightMessages) -> Fetcher:
    """Consume the queue, as after a lost connection, on one that takes commands and never answers."""
    silent = SimpleNamespace(send_command=lambda *_: None)
    cycle = SimpleNamespace(connect_watched=lambda *_: silent)
    channel = SimpleNamespace(
        store=store,
        new_client=lambda: None,
        connection=SimpleNamespace(cycle=cycle),
        global_keyprefix=store.prefix,
        socket_timeout=5,
    )
    fetcher = Fetcher(channel, in_flight, lease_ms=LEASE_MS)
    fetcher.start_queue(QueueKeys("lost", store.prefix))
    return fetcher


def test_messages_of_a_lost_first_reply_go_back(store: Store) -> None:
    """Messages of a consumer's first fetch go back to the queue if the reply is lost."""
    send(store, 3)
    in_flight = InFlightMessages()
    turn_without_reply(store, in_flight)
    assert inspect_depth.read_depth(store, "lost").in_flight == 3
    start(store, in_flight)
    depth = inspect_depth.read_depth(store, "lost")
    assert (depth.ready, depth.in_flight) == (3, 0)


def test_a_turn_that_arrives_after_its_connection_was_given_up_fetches_nothing(store: Store) -> None:
    """A fetch of a lost connection that reaches the server late fetches nothing."""
    in_flight, lease = consumer_of_one(store)
    late = FetchRequest(lease, 5, 5, [])
    words = fetch_call.fetch_command(late, lease_ms=LEASE_MS)
    start(store, in_flight)
    send(store, 3)
    keys = words[3 : 3 + words[2]]
    reply = fetch_call.parse_reply(script("settle_and_fetch").run(store.client, keys, words[3 + len(keys) :]))
    assert (reply.lease, reply.messages) == (False, [])
    depth = inspect_depth.read_depth(store, "lost")
    assert (depth.ready, depth.in_flight, depth.consumers) == (3, 1, 1)


def test_tasks_in_flight_are_settled_after_the_connection_was_lost(store: Store) -> None:
    """A message fetched before a lost connection stays with its consumer, which settles it."""
    in_flight, lease = consumer_of_one(store)
    start(store, in_flight)
    [token] = lease.in_flight
    in_flight.queue_outcome(lease.in_flight[token], SUCCEEDED)
    fetch_call.settle_pending(store, in_flight, lease_ms=LEASE_MS)
    depth = inspect_depth.read_depth(store, "lost")
    assert (depth.in_flight, depth.counters["settled"], lease.late) == (0, 1, 0)


def test_settlements_of_a_lost_turn_are_made_by_the_next(store: Store) -> None:
    """A settlement that was lost with its connection is sent again; its task does not run twice."""
    in_flight, lease = consumer_of_one(store)
    first = start(store, in_flight)
    [token] = lease.in_flight
    in_flight.queue_outcome(lease.in_flight[token], SUCCEEDED)
    first.on_tick()
    assert not lease.outcomes, "the settlement is under way"
    start(store, in_flight)
    fetch_call.settle_pending(store, in_flight, lease_ms=LEASE_MS)
    depth = inspect_depth.read_depth(store, "lost")
    assert (depth.ready, depth.in_flight, depth.counters["settled"]) == (0, 0, 1)


def test_settlements_of_the_loop_are_made_after_the_connection_was_lost(store: Store) -> None:
    """The loop forgets its callbacks with a lost connection; a task that had ended is settled."""
    in_flight, lease = consumer_of_one(store)
    start(store, in_flight)
    in_flight.finished.append((next(iter(lease.in_flight.values())), SUCCEEDED))
    start(store, in_flight)
    fetch_call.settle_pending(store, in_flight, lease_ms=LEASE_MS)
    depth = inspect_depth.read_depth(store, "lost")
    assert (depth.in_flight, depth.counters["settled"]) == (0, 1)
