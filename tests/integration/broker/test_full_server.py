"""A server that is out of memory: commands that fill it are refused, those that empty it are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.broker import audit, limits
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.outcomes import DeadLetter, Succeeded
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.valkey import embedded_binary, run_server
from tests.harness.manual_consumer import ManualConsumer


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of a server of its own."""
    with (
        run_server(tmp_path, binary=embedded_binary()) as server,
        Client(server.url, settings=Settings()) as made,
    ):
        yield made


def fill(store: Store) -> None:
    """Leave the server no free memory."""
    store.client.config_set("maxmemory", 1)


def test_no_policy_fills_a_full_server_further(client: Client) -> None:
    """A full server refuses a send with `shed` too: shedding keeps the old message beside the new one."""
    limits.change_limits(client.store, "default", bound=1)
    client.send(Square(n=1))
    fill(client.store)
    for policy in ("reject", "shed"):
        with pytest.raises(BrokerError, match="out of memory"):
            client.send(Square(n=2), overflow=policy)  # type: ignore[arg-type]
    depth = inspect_depth.read_depth(client.store, "default")
    assert (depth.ready, depth.dead, depth.counters.get("shed", 0)) == (1, 0, 0)


def test_a_queue_is_paused_and_resumed_on_a_full_server(client: Client) -> None:
    """A paused queue may fill the server; the change is done, and noted."""
    client.send(Square(n=1))
    fill(client.store)
    limits.change_limits(client.store, "default", paused=True)
    assert limits.read_limits(client.store, "default").paused
    limits.change_limits(client.store, "default", paused=None)
    assert not limits.read_limits(client.store, "default").paused
    audit.record_change(client.store, "ann", "resumed queue default")
    assert [change.action for change in audit.read_changes(client.store)] == ["resumed queue default"]


def test_settling_adds_no_results_to_a_full_server(client: Client) -> None:
    """Tasks are settled and counted; a result or traceback that does not fit is replaced by a note."""
    store, count = client.store, 200
    long = "x" * 60_000
    with client.batch() as batch:
        batch.send_many(Square(n=n) for n in range(count + 2))
    consumer = ManualConsumer(store, "default")
    consumer.fetch(count + 2)
    consumer.settle(Succeeded(f'{{"value": "{long}"}}'), 1)
    fill(store)
    before = store.client.info("memory")["used_memory"]
    consumer.settle(DeadLetter("ValueError", "ValueError: no", {"traceback": long}), 1)
    while consumer.lease.in_flight:
        consumer.settle(Succeeded(f'{{"value": "{long}"}}'), 50)
    assert store.client.info("memory")["used_memory"] - before < 200_000, "the results had 12 MB"
    summary = batch.summary()
    assert (summary.succeeded, summary.failed, summary.complete) == (count + 1, 1, True)
    results = list(batch.results())
    assert results[0].value == long
    assert results[1].error == "ValueError: no"
    assert {(each.value, each.error) for each in results[2:]} == {
        (None, "the result was dropped: the broker was out of memory")
    }
    assert inspect_depth.read_depth(store, "default").counters["details_dropped"] == count + 2


def test_an_unreadable_result_hides_no_other(client: Client) -> None:
    """A result that is not a JSON object is reported as an error; the results beside it are read."""
    with client.batch() as batch:
        batch.send_many(Square(n=n) for n in range(4))
    consumer = ManualConsumer(client.store, "default")
    consumer.fetch(4)
    for text in ("<broken>", '["a list"]', "[" * 100_000, '{"value": 4}'):
        consumer.settle(Succeeded(text), 1)
    found = [(each.value, each.error) for each in batch.results()]
    assert found[3] == (4, None)
    assert set(found[:3]) == {(None, "the result cannot be read: it is not a JSON object")}
