"""Messages that push no wake token are fetched at once: a few processes watch for them on behalf of all.

The processes here are fetchers on real connections, and a thread of the test runs their loops. No process
fetches by itself within the first twelve seconds.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from millpond.broker import limits, publish, server
from millpond.broker.connection import Store
from millpond.broker.consume import fetcher as fetcher_module
from millpond.broker.consume import watcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.inspect import depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from tests.harness.manual_consumer import ManualConsumer
from tests.harness.manual_fetcher import ManualFetcher

QUEUE = "plain"


class Process(ManualFetcher):
    """A worker process of one slot."""

    def __init__(self, url: str, store: Store, **of_connections: Any) -> None:
        self.taken: list[Any] = []
        self.waits = 0
        super().__init__(url, store, QUEUE, InFlightMessages(), self._take, **of_connections)

    def _take(self, delivery: Any) -> None:
        self.taken.append(delivery.message.id)
        self.in_flight.queue_outcome(delivery, SUCCEEDED)

    @property
    def handlers(self) -> dict[Any, Callable[[], None]]:
        """The reader of each open connection."""
        fetcher = self.fetcher
        found = {
            fetcher.fetch_client: fetcher.on_reply,
            fetcher.wait_client: self._on_wait,
            fetcher.listener.client: fetcher.on_control_change,
        }
        return {c.connection._sock: read for c, read in found.items() if c.connection._sock is not None}

    def _on_wait(self) -> None:
        self.waits += 1
        self.fetcher.on_wait()

    @property
    def is_waiting(self) -> bool:
        """True if it waits, and knows that some process watches."""
        return self.fetcher._waiting is not None and self.fetcher.watcher.is_watched(QUEUE)

    @property
    def watches(self) -> bool:
        """True if it watches itself, and would get a notice of a message."""
        watched = self.fetcher.watcher._queues.get(QUEUE)
        return watched is not None and watched.seat > 0 and watched.is_tracked


def run_loops(processes: list[Process], until: Callable[[], Any], seconds: float = 40.0) -> float:
    """Run the event loops until something is true. Return the seconds that it took."""
    began = monotonic()
    while not until():
        assert monotonic() - began < seconds
        for process in processes:
            process.fetcher.on_tick()
        reads = {sock: read for process in processes for sock, read in process.handlers.items()}
        for sock in select.select(list(reads), [], [], 0.005)[0]:
            reads[sock]()
    return monotonic() - began


def push(store: Store, step: int = 0) -> str:
    """Push a message as a stock producer does, without a token; return its id."""
    message = compose("test.kind", {}, queue=QUEUE, sent_at_ms=0)
    store.client.lpush(QueueKeys(QUEUE, store.prefix).ready[step], message.payload)
    return message.id


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Process]]]:
    """Return `start(url, store, count)`: idle processes, the first of which watch."""
    with ExitStack() as stack:

        def started(url: str, store: Store, count: int = 1) -> list[Process]:
            for name in ("POLL_SECONDS", "WATCHED_POLL_SECONDS"):
                monkeypatch.setattr(fetcher_module, name, 0.2)
            processes = [Process(url, store) for _ in range(count)]
            for process in processes:
                stack.callback(process.close)
            run_loops(processes, lambda: all(each.is_waiting for each in processes))
            # A wait that began before there was a watcher ends soon.
            monkeypatch.setattr(fetcher_module, "POLL_SECONDS", 12.0)
            monkeypatch.setattr(fetcher_module, "WATCHED_POLL_SECONDS", 12.0)
            waits = [each.waits for each in processes]
            run_loops(
                processes, lambda: all(each.waits > n for each, n in zip(processes, waits, strict=True))
            )
            run_loops(processes, lambda: all(each.is_waiting for each in processes))
            run_loops(processes, lambda: sum(each.watches for each in processes) == min(count, 2))
            return processes

        yield started


@pytest.mark.parametrize("step", [0, 3])
def test_a_plain_push_is_taken_at_once(each_url: str, each_store: Store, start: Any, step: int) -> None:
    """On every server and priority, an idle process has a plain message long before its own fetch."""
    [process] = start(each_url, each_store)
    for _ in range(3):
        wanted = push(each_store, step)
        assert run_loops([process], lambda wanted=wanted: wanted in process.taken) < 5
        run_loops([process], lambda: process.is_waiting and process.watches)


def test_a_plain_push_wakes_one_of_many(url: str, store: Store, start: Any) -> None:
    """Two of eight processes watch, and each message wakes one process, hardly ever a second."""
    processes = start(url, store, 8)
    before = sum(each.waits for each in processes)
    for _ in range(10):
        wanted = push(store)
        run_loops(processes, lambda wanted=wanted: any(wanted in each.taken for each in processes))
        run_loops(processes, lambda: all(each.is_waiting for each in processes))
    assert sum(each.waits for each in processes) - before <= 15


@pytest.mark.slow
def test_another_process_looks_out_for_one_that_died(url: str, store: Store, start: Any) -> None:
    """When all watchers are dead, another process becomes one within seconds; no message waits long."""
    processes = start(url, store, 3)
    for dead in [each for each in processes if each.watches]:
        processes.remove(dead)
        dead.close()
    [left] = processes
    run_loops(processes, lambda: left.watches, 4 * watcher.SEAT_SECONDS)
    wanted = push(store)
    assert run_loops(processes, lambda: wanted in left.taken) < 5


def test_a_process_that_leaves_makes_room_for_another(url: str, store: Store, start: Any) -> None:
    """A process that stops consuming leaves its place at once."""
    processes = start(url, store, 3)
    left = next(each for each in processes if not each.watches)
    for each in processes:
        if each is not left:
            each.fetcher.stop_queue(QUEUE)
    assert run_loops([left], lambda: left.watches) < watcher.RECHECK_SECONDS + watcher.SEAT_SECONDS - 0.5


def test_to_leave_a_seat_nothing_is_connected(url: str, store: Store, start: Any) -> None:
    """After a lost connection a process leaves its seats to expire: the event loop may be closed by then."""
    [process] = start(url, store)
    run_loops([process], lambda: process.watches)
    client = process.fetcher.listener.client
    client.connection.disconnect()
    process.fetcher.stop_queue(QUEUE)
    assert not client.connection.is_connected


def test_without_the_right_to_track_a_process_looks_for_itself(url: str, store: Store) -> None:
    """A user without the right to CLIENT TRACKING fetches every second, as before."""
    rules = ("on", "nopass", "~*", "&*", "+@all", "-client|tracking")
    store.client.execute_command("ACL", "SETUSER", "modest", *rules)
    process = Process(url, store, username="modest")
    try:
        run_loops([process], lambda: process.fetcher._waiting is not None)
        wanted = push(store)
        assert run_loops([process], lambda: wanted in process.taken) < 10
        assert not process.fetcher.watcher.is_tracking
    finally:
        process.close()
        store.client.execute_command("ACL", "DELUSER", "modest")


def test_a_message_of_millpond_wakes_one(url: str, store: Store, start: Any) -> None:
    """A message that pushes its own token wakes hardly ever a second process."""
    processes = start(url, store, 4)
    before = sum(each.waits for each in processes)
    for _ in range(10):
        message = compose("test.kind", {}, queue=QUEUE, sent_at_ms=0)
        publish.publish(store, [message])
        run_loops(processes, lambda id=message.id: any(id in each.taken for each in processes))
        run_loops(processes, lambda: all(each.is_waiting for each in processes))
    assert sum(each.waits for each in processes) - before <= 15


def test_one_delayed_message_wakes_one_when_it_is_due(url: str, store: Store, start: Any) -> None:
    """A delayed message wakes no process when it is sent, and one when it is due; that one is on time."""
    processes = start(url, store, 8)
    fetches = sum(each.in_flight.fetch_calls + each.waits for each in processes)
    for _ in range(3):
        due = server.server_time_ms(store) + 300
        message = compose("test.kind", {}, queue=QUEUE, sent_at_ms=0, due_ms=due)
        publish.publish(store, [message])
        run_loops(processes, lambda id=message.id: any(id in each.taken for each in processes))
        assert server.server_time_ms(store) - due < 250
        run_loops(processes, lambda: all(each.is_waiting for each in processes))
    assert sum(each.in_flight.fetch_calls + each.waits for each in processes) - fetches <= 18


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 5])
def test_a_look_costs_the_same_in_a_large_fleet(
    url: str, store: Store, start: Any, limit: int | None
) -> None:
    """The commands that the server runs for a look of an idle process, or of its health check, do not grow
    with the processes, whether the queue is empty or its in-flight limit keeps messages waiting.
    """
    per_fetch, per_check = [], []
    for count in (4, 12):
        processes = start(url, store, count)
        if limit:
            holder = ManualConsumer(store, QUEUE)
            limits.change_limits(store, QUEUE, in_flight=limit)
            for _ in range(limit + 1):
                push(store)
            holder.fetch(limit)
            run_loops(processes, lambda processes=processes: all(each.is_waiting for each in processes))
        before, fetches = server_commands(store), sum(each.in_flight.fetch_calls for each in processes)
        for _ in range(10):
            for each in processes:
                each.in_flight.leases[QUEUE].fetchable = True
                each.fetcher.end_wait()
            run_loops(processes, lambda processes=processes: all(each.is_waiting for each in processes))
        fetches = sum(each.in_flight.fetch_calls for each in processes) - fetches
        assert fetches >= 10 * count
        per_fetch.append((server_commands(store) - before) / fetches)
        before = server_commands(store)
        assert not depth.read_fetchable_limits(store, [QUEUE])
        per_check.append(server_commands(store) - before)
        for each in processes:
            each.fetcher.stop_queue(QUEUE)
            each.close()
        if limit:
            holder.settle(SUCCEEDED)
    assert per_fetch[1] < 1.25 * per_fetch[0] < 50
    assert per_check[0] == per_check[1] < 10


def server_commands(store: Store) -> int:
    """Return how many commands the server has run, those of scripts among them."""
    return sum(each["calls"] for each in store.client.info("commandstats").values())
