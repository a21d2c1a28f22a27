"""Send a turn along behind a wait: the server fetches at once, and credit is given once."""

import select
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from millpond.broker import limits, publish
from millpond.broker.connection import Store
from millpond.broker.consume.fetcher import START_SECONDS, Fetcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose

LEASE_MS = 60_000
QUEUE = "behind"


class Process:
    """A worker process of two slots: its fetcher on real connections, its loop turned by the test."""

    def __init__(self, url: str, store: Store, *, prefetch: int) -> None:
        self.delivered: list[Any] = []
        self.in_flight = InFlightMessages(prefetch=prefetch)
        self.in_flight.slots = 2
        self._clients: list[Any] = []
        self.cycle = SimpleNamespace(connect_watched=_connected)
        channel = SimpleNamespace(
            store=store,
            new_client=lambda: self._client(url),
            deliver=self.delivered.append,
            connection=SimpleNamespace(cycle=self.cycle),
            global_keyprefix=store.prefix,
            socket_timeout=5,
        )
        self.fetcher = Fetcher(channel, self.in_flight, lease_ms=LEASE_MS)
        self.fetcher.start_queue(QueueKeys(QUEUE, store.prefix))

    def _client(self, url: str) -> Any:
        self._clients.append(Redis.from_url(url, single_connection_client=True))
        return self._clients[-1]

    def settle_first(self) -> None:
        """Settle the first delivery."""
        self.in_flight.queue_outcome(self.delivered[0], SUCCEEDED)

    def become_idle(self) -> None:
        """Take a turn that finds nothing, then wait."""
        self.fetcher.on_tick()
        while self.fetcher._waiting is None:  # a new server does not know the script at first
            self.read(self.fetcher.fetch_client)
            self.fetcher.on_reply()
            self.fetcher.on_tick()

    def read(self, client: Any) -> None:
        """Wait until a connection has something to read."""
        ready, _, _ = select.select([client.connection._sock], [], [], 10)
        assert ready

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


def _connected(_channel: Any, client: Any, _kind: str) -> Any:
    client.connection.connect()
    return client.connection


@pytest.fixture
def process(url: str, store: Store) -> Iterator[Process]:
    """Start an idle process with room for four messages."""
    started = Process(url, store, prefetch=2)
    started.become_idle()
    yield started
    started.close()


def send(store: Store, count: int = 1) -> None:
    """Publish some messages."""
    messages = [compose("test.kind", {"n": n}, queue=QUEUE, sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)


def test_an_idle_process_holds_a_message_before_it_hears_of_it(
    store: Store, process: Process, eventually: Callable[..., object]
) -> None:
    """Publishing to an idle process is enough for the server to hand the message over, under its lease."""
    send(store)
    eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight == 1)
    assert not process.delivered
    process.read(process.fetcher.wait_client)
    process.fetcher.on_wait()
    assert len(process.delivered) == 1
    assert process.in_flight.count == 1


def test_the_call_that_frees_a_permit_uses_it(store: Store, process: Process) -> None:
    """Under an in-flight limit, the call that settles a message fetches the next, and wakes no process."""
    limits.change_limits(store, QUEUE, in_flight=1)
    process.read(process.fetcher.wait_client)  # a change of a limit wakes a waiting process
    process.fetcher.on_wait()
    send(store, 3)
    process.become_idle()
    process.read(process.fetcher.wait_client)
    process.fetcher.on_wait()
    process.become_idle()
    keys, fetcher = process.in_flight.leases[QUEUE].keys, process.fetcher
    for ended in (1, 2):
        assert (len(process.delivered), fetcher._pipelined) == (ended, None)
        store.client.delete(keys.wake)
        process.in_flight.queue_outcome(process.delivered[-1], SUCCEEDED)
        fetcher.on_tick()
        process.read(fetcher.fetch_client)
        fetcher.on_reply()
        assert inspect_depth.read_depth(store, QUEUE).in_flight == 1
        assert not store.client.exists(keys.wake)
    assert len(process.delivered) == 3


def test_settling_while_a_turn_waits_fetches_nothing(store: Store, process: Process) -> None:
    """The credit of the waiting call is not given a second time to the call that settles meanwhile."""
    send(store)
    process.read(process.fetcher.wait_client)
    process.fetcher.on_wait()
    process.fetcher.on_tick()  # it waits again, with a turn behind
    process.settle_first()
    process.in_flight.leases[QUEUE].fetchable = True  # as news makes it
    process.fetcher.on_tick()
    turn = process.fetcher._request
    assert turn is not None
    assert (turn.credit, len(turn.outcomes)) == (0, 1)
    process.read(process.fetcher.fetch_client)
    process.fetcher.on_reply()
    assert inspect_depth.read_depth(store, QUEUE).counters["settled"] == 1


def test_a_process_that_ends_gives_back_what_it_has_not_heard_of(
    store: Store, process: Process, eventually: Callable[..., object]
) -> None:
    """A process that drains takes no message from a waiting fetch, and that fetch fetches none any more."""
    send(store, 2)
    eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight == 2)
    process.in_flight.draining = True
    process.fetcher.finish_call()
    depth = inspect_depth.read_depth(store, QUEUE)
    assert (depth.ready, depth.in_flight, process.delivered) == (2, 0, [])
    send(store)
    assert inspect_depth.read_depth(store, QUEUE).ready == 3


def test_a_server_that_forgot_its_scripts_is_asked_again(store: Store, process: Process) -> None:
    """A turn that waited is not lost to SCRIPT FLUSH: the message is fetched by the next."""
    store.client.script_flush()
    send(store)
    process.read(process.fetcher.wait_client)
    process.fetcher.on_wait()
    assert not process.delivered
    process.fetcher.on_tick()
    process.read(process.fetcher.fetch_client)
    process.fetcher.on_reply()
    assert len(process.delivered) == 1


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note for how long the process steps back, in seconds."""
    noted: list[float] = []
    monkeypatch.setattr("millpond.broker.consume.fetcher.sleep", noted.append)
    return noted


def test_an_idle_process_steps_back_for_what_it_was_sent(
    store: Store, process: Process, naps: list[float]
) -> None:
    """The thread that wakes for a task finds the interpreter free; a process at work does not step back."""
    for _ in range(2):
        send(store)
        process.read(process.fetcher.wait_client)
        process.fetcher.on_wait()
        process.fetcher.on_tick()
    assert (len(process.delivered), naps) == (2, [START_SECONDS])


def test_a_process_that_is_sent_more_than_it_took_does_not_step_back(
    store: Store, process: Process, naps: list[float], eventually: Callable[..., None]
) -> None:
    """A process that was sent more than it took fetches the rest at once, and does not step back."""
    send(store, process.in_flight.room + 1)
    eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight > 0)
    process.read(process.fetcher.wait_client)
    process.fetcher.on_wait()
    assert process.delivered
    assert not naps
