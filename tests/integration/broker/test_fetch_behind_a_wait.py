"""Send a turn along behind a wait: the server fetches at once, and credit is given once."""

import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millpond.broker import limits, publish
from millpond.broker.connection import Store
from millpond.broker.consume.fetcher import START_SECONDS
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from tests.conftest import Eventually
from tests.harness.manual_fetcher import ManualFetcher

QUEUE = "behind"


class Process(ManualFetcher):
    """A worker process of two slots."""

    def __init__(self, url: str, store: Store, *, prefetch: int) -> None:
        self.delivered: list[Any] = []
        in_flight = InFlightMessages(prefetch=prefetch)
        in_flight.slots = 2
        super().__init__(url, store, QUEUE, in_flight, self.delivered.append)

    def become_idle(self) -> None:
        """Take a turn that finds nothing, then wait."""
        self.fetcher.on_tick()
        while self.fetcher._waiting is None:  # a new server does not know the script at first
            self.read_reply()
            self.fetcher.on_tick()

    def read_reply(self) -> None:
        """Wait for the reply to a fetch, and take its messages."""
        _wait_for_bytes(self.fetcher.fetch_client)
        self.fetcher.on_reply()

    def read_wait(self) -> None:
        """Wait for the end of the wait, and take the messages of the fetch behind it."""
        _wait_for_bytes(self.fetcher.wait_client)
        self.fetcher.on_wait()


def _wait_for_bytes(client: Any) -> None:
    ready, _, _ = select.select([client.connection._sock], [], [], 10)
    assert ready


@pytest.fixture
def process(url: str, store: Store) -> Iterator[Process]:
    """Start an idle process with room for four messages."""
    started = Process(url, store, prefetch=2)
    started.become_idle()
    yield started
    started.close()


def send(store: Store, count: int = 1, queue: str = QUEUE) -> None:
    """Publish some messages."""
    messages = [compose("test.kind", {"n": n}, queue=queue, sent_at_ms=0) for n in range(count)]
    publish.publish(store, messages)


def test_an_idle_process_holds_a_message_before_it_hears_of_it(
    store: Store, process: Process, eventually: Eventually
) -> None:
    """Publishing to an idle process is enough for the server to hand the message over, under its lease."""
    send(store)
    eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight == 1)
    assert not process.delivered
    process.read_wait()
    assert len(process.delivered) == 1
    assert process.in_flight.count == 1


def test_the_call_that_frees_a_permit_uses_it(store: Store, process: Process) -> None:
    """Under an in-flight limit, the call that settles a message fetches the next, and wakes no process."""
    limits.change_limits(store, QUEUE, in_flight=1)
    process.read_wait()  # a change of a limit wakes a waiting process
    send(store, 3)
    process.become_idle()
    process.read_wait()
    process.become_idle()
    keys, fetcher = process.in_flight.leases[QUEUE].keys, process.fetcher
    for ended in (1, 2):
        assert (len(process.delivered), fetcher._pipelined) == (ended, None)
        store.client.delete(keys.wake)
        process.in_flight.queue_outcome(process.delivered[-1], SUCCEEDED)
        fetcher.on_tick()
        process.read_reply()
        assert inspect_depth.read_depth(store, QUEUE).in_flight == 1
        assert not store.client.exists(keys.wake)
    assert len(process.delivered) == 3


def test_settling_while_a_turn_waits_fetches_nothing(store: Store, process: Process) -> None:
    """The credit of the waiting call is not given a second time to the call that settles meanwhile."""
    send(store)
    process.read_wait()
    process.fetcher.on_tick()  # it waits again, with a turn behind
    process.in_flight.queue_outcome(process.delivered[0], SUCCEEDED)
    process.in_flight.leases[QUEUE].fetchable = True  # as news makes it
    process.fetcher.on_tick()
    turn = process.fetcher._request
    assert turn is not None
    assert (turn.credit, len(turn.outcomes)) == (0, 1)
    process.read_reply()
    assert inspect_depth.read_depth(store, QUEUE).counters["settled"] == 1


def test_a_process_that_ends_gives_back_what_it_has_not_heard_of(
    store: Store, process: Process, eventually: Eventually
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
    process.read_wait()
    assert not process.delivered
    process.fetcher.on_tick()
    process.read_reply()
    assert len(process.delivered) == 1


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a wait last longer than the test waits for its end, with a fetch behind it all the same."""
    monkeypatch.setattr("millpond.broker.consume.fetcher.POLL_SECONDS", 20.0)


def start_queues(process: Process, store: Store, *queues: str) -> None:
    """Add queues to those that the process consumes."""
    for queue in queues:
        process.fetcher.start_queue(QueueKeys(queue, store.prefix))


@pytest.mark.usefixtures("long_waits")
def test_an_added_queue_is_waited_for_too(url: str, store: Store) -> None:
    """Adding queues ends the wait in progress once, with or without a fetch behind it, by its own token."""
    process = Process(url, store, prefetch=2)
    process.become_idle()
    try:
        assert process.fetcher._pipelined
        start_queues(process, store, "added", "added.too")
        process.read_wait()
        process.become_idle()
        assert process.fetcher._waiting == ["added", "added.too", QUEUE]
        assert not process.fetcher._pipelined
        start_queues(process, store, "last", "added")  # one is waited for already
        process.read_wait()
        process.become_idle()
        send(store, queue="last")
        process.read_wait()
        process.fetcher.on_tick()
        process.read_reply()
        assert [delivery.queue for delivery in process.delivered] == ["last"]
        assert not list(store.client.scan_iter(match=f"*{process.in_flight.name}*", _type="list"))
    finally:
        process.close()


@pytest.mark.usefixtures("long_waits")
def test_a_message_that_was_fetched_before_a_queue_is_added_runs_once(
    url: str, store: Store, eventually: Eventually
) -> None:
    """The fetch behind the wait has taken messages, its reply is not read yet, and a queue is added."""
    process = Process(url, store, prefetch=2)
    process.become_idle()
    try:
        send(store, 2)
        eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight == 2)
        start_queues(process, store, "added")
        send(store, queue="added")
        process.read_wait()
        while len(process.delivered) < 3:
            process.fetcher.on_tick()
            process.read_reply()
        for delivery in process.delivered:
            process.in_flight.queue_outcome(delivery, SUCCEEDED)
        process.become_idle()
        process.read_wait()  # the token was not needed: it ends one more wait
        process.become_idle()
        depths = [inspect_depth.read_depth(store, queue) for queue in (QUEUE, "added")]
        assert [(depth.ready, depth.in_flight) for depth in depths] == [(0, 0), (0, 0)]
        assert [depth.counters["settled"] for depth in depths] == [2, 1]
        assert len(process.delivered) == 3
    finally:
        process.close()


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
        process.read_wait()
        process.fetcher.on_tick()
    assert (len(process.delivered), naps) == (2, [START_SECONDS])


def test_a_process_that_is_sent_more_than_it_took_does_not_step_back(
    store: Store, process: Process, naps: list[float], eventually: Callable[..., None]
) -> None:
    """A process that was sent more than it took fetches the rest at once, and does not step back."""
    send(store, process.in_flight.room + 1)
    eventually(lambda: inspect_depth.read_depth(store, QUEUE).in_flight > 0)
    process.read_wait()
    assert process.delivered
    assert not naps
