"""Admission on a real server: producers are served in turn, without polling; a killed one blocks no other."""

import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from millpond.broker import limits, publish
from millpond.broker.admission import leave_line, new_ticket, wait_for_room
from millpond.broker.connection import Store
from millpond.broker.inspect import depth, purge
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import RELEASE
from millpond.broker.outgoing import compose
from millpond.broker.publish import Accepted, Caller, Full
from millpond.producer.client import Client
from millpond.tasks.errors import BrokerAway, QueueFull
from millpond.tasks.squares.contract import Square
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.manual_consumer import ManualConsumer
from tests.harness.own_server import OwnServer, run_own_server


@pytest.fixture
def client(client: Client) -> Client:
    """Return a client of a queue that is full with two tasks."""
    limits.change_limits(client.store, "default", bound=2)
    client.send_many([Square(n=-2), Square(n=-1)])
    return client


def in_line(client: Client) -> int:
    return int(client.store.client.zcard(QueueKeys("default", client.store.prefix).waiters))


def send(client: Client, name: int, done: list[int]) -> None:
    """Send one task, and send it again if the server died during the call: the first message may be lost."""
    while True:
        with suppress(BrokerAway):
            client.send(Square(n=name))
            break
    done.append(name)


def blocked(client: Client, names: list[int], eventually: Eventually, done: list[int]) -> list[Any]:
    """Start threads that wait for room, one behind the other."""
    threads = []
    for place, name in enumerate(names, start=in_line(client) + 1):
        thread = threading.Thread(target=send, args=(client, name, done))
        thread.start()
        threads.append(thread)
        eventually(lambda place=place: in_line(client) == place)
    return threads


def test_producers_that_wait_are_served_in_turn(client: Client, eventually: Eventually) -> None:
    """Room goes to the producer that waits longest, one by one; no later one overtakes it."""
    done: list[int] = []
    threads, consumer = blocked(client, [0, 1, 2], eventually, done), ManualConsumer(client.store, "default")
    for served in range(3):
        consumer.settle_and_fetch(1)
        eventually(lambda served=served: len(done) == served + 1)
        with pytest.raises(QueueFull):
            client.send(Square(n=99), timeout=timedelta(0))
    for thread in threads:
        thread.join(10)
    assert done == [0, 1, 2]


def test_a_called_producers_room_is_nobody_elses(client: Client) -> None:
    """Room granted to a called producer is refused to newcomers under every overflow policy."""
    store, ticket = client.store, new_ticket(1)
    assert isinstance(ask(store, ticket), Full)
    ManualConsumer(store, "default").settle_and_fetch(1)
    for overflow in ("reject", "block"):
        with pytest.raises(QueueFull):
            client.send(Square(n=9), overflow=overflow, timeout=timedelta(0))
    assert wait_for_room(store, "default", ticket, 1) == 1
    assert isinstance(ask(store, ticket), Accepted)


def test_messages_that_return_pass_the_bound_and_no_sender_adds_to_them(client: Client) -> None:
    """A queue of returned messages is above its bound; under no overflow policy does a send lengthen it."""
    consumer = ManualConsumer(client.store, "default")
    consumer.fetch(2)
    client.send_many([Square(n=1), Square(n=2)])
    consumer.settle(RELEASE)
    for overflow in ("reject", "block"):
        with pytest.raises(QueueFull):
            client.send(Square(n=3), overflow=overflow, timeout=timedelta(0))
    assert client.send(Square(n=4), overflow="caller_runs").ran_here is not None
    assert client.send(Square(n=5), overflow="shed").ran_here is None
    counts = depth.read_depth(client.store, "default")
    assert (counts.ready, counts.dead, counts.counters["high_water"]) == (4, 1, 4)


def ask(store: Store, ticket: str) -> Any:
    message = compose("squares.square", {"n": 1}, queue="default", sent_at_ms=1)
    [answer] = publish.publish(store, [message], policy="block", caller=Caller(ticket, stays=True))
    return answer


def test_a_killed_producer_blocks_nobody(client: Client, eventually: Eventually) -> None:
    """Producers that were killed while they waited are passed over within seconds, however many."""
    for _ in range(30):
        assert isinstance(ask(client.store, new_ticket(1)), Full)
    done: list[int] = []
    threads, consumer = blocked(client, [7], eventually, done), ManualConsumer(client.store, "default")

    def served() -> bool:
        consumer.settle_and_fetch(2)
        return done == [7]

    eventually(served, 15, every_seconds=0.2)
    threads[0].join(10)


def test_a_producer_that_gives_up_leaves_the_line(client: Client, eventually: Eventually) -> None:
    """A producer whose time is up leaves the line; the next is served as if the first had never waited."""
    with pytest.raises(QueueFull):
        client.send(Square(n=1), timeout=timedelta(milliseconds=200))
    assert in_line(client) == 0
    ticket = new_ticket(1)
    ask(client.store, ticket)
    done: list[int] = []
    threads, consumer = blocked(client, [5], eventually, done), ManualConsumer(client.store, "default")
    consumer.settle_and_fetch(1)
    leave_line(client.store, "default", ticket)  # it was called, and goes
    eventually(lambda: done == [5])
    threads[0].join(10)


@pytest.mark.parametrize("how", ["bound", "purge", "turn"])
def test_every_cause_of_room_calls_the_waiting_producers(
    client: Client, eventually: Eventually, how: str
) -> None:
    """A raised bound, a purge and a fetch let a blocked producer go on at once, not at its next question."""
    done: list[int] = []
    threads = blocked(client, [3], eventually, done)
    if how == "bound":
        limits.change_limits(client.store, "default", bound=3)
    elif how == "purge":
        purge.purge_queue(client.store, "default")
    else:
        ManualConsumer(client.store, "default").settle_and_fetch(1)
    eventually(lambda: done == [3], 5)
    threads[0].join(10)


def test_a_stream_gets_room_in_lots_and_shares_it(client: Client, eventually: Eventually) -> None:
    """Two blocked streams go on by turns in lots of a sixteenth of the bound, and both end."""
    limits.change_limits(client.store, "default", bound=64)
    tallies: list[Any] = []

    def stream(first: int) -> None:
        tallies.append(client.send_many(Square(n=n) for n in range(first, first + 100)))

    threads = [threading.Thread(target=stream, args=(first,)) for first in (0, 1_000)]
    for thread in threads:
        thread.start()
    consumer = ManualConsumer(client.store, "default")

    def drained() -> bool:
        consumer.settle_and_fetch(3)
        return len(tallies) == 2

    eventually(drained, 30, every_seconds=0.005)
    assert [tally.accepted for tally in tallies] == [100, 100]
    counters = client.store.client.hgetall(QueueKeys("default", client.store.prefix).counters)
    assert int(counters[b"high_water"]) == 64
    for thread in threads:
        thread.join(10)


def test_waiting_asks_the_server_nothing(client: Client, eventually: Eventually) -> None:
    """While twenty producers wait the server hears nothing from them for seconds."""
    done: list[int] = []
    threads = blocked(client, list(range(20)), eventually, done)
    eventually(lambda: asleep(client) == 20)
    before = commands(client)
    threads[0].join(2)
    assert commands(client) == before
    limits.change_limits(client.store, "default", bound=100)
    for thread in threads:
        thread.join(10)
    assert sorted(done) == list(range(20))


def asleep(client: Client) -> int:
    """Return how many connections to the client's database wait in a command."""
    database = str(client.store.client.connection_pool.connection_kwargs["db"])
    return sum(each["db"] == database and "b" in each["flags"] for each in client.store.client.client_list())


def commands(client: Client) -> int:
    stats = client.store.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "blpop"))


def test_a_broker_that_restarts_empty_is_survived(tmp_path: Path, eventually: Eventually) -> None:
    """When the server loses the line, its producers are back in it within seconds."""
    with run_own_server(OwnServer(embedded_binary(), tmp_path)) as server, Client(server.url) as client:
        limits.change_limits(client.store, "default", bound=1)
        client.send(Square(n=-1))
        done: list[int] = []
        threads = blocked(client, [1, 2, 3], eventually, done)
        server.kill()
        server.start()
        eventually(lambda: sorted(done) == [1, 2, 3], 20)
        for thread in threads:
            thread.join(10)
