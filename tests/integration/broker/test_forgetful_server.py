"""A server that forgets: put back to an older copy, as by a fail-over that lagged, or robbed of a key."""

import logging
from pathlib import Path

import pytest

from millpond.broker import publish
from millpond.broker.connection import Store
from millpond.broker.consume.lease_renewer import lease_orphaned_messages
from millpond.broker.consume.lease_resumption import resume_lease
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.inspect.depth import Depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from millpond.broker.scripts import script
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually
from tests.harness.manual_consumer import LEASE_MS, ManualConsumer
from tests.harness.noted import read_names, send_acts
from tests.harness.one_worker import settings_for, workers

QUEUE = "olden"


class Copy:
    """A copy of the server's keys under the store's prefix, to which it can be put back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        keys = store.client.keys(f"{store.prefix}*")
        self._dumps = {key: (store.client.dump(key), max(0, store.client.pttl(key))) for key in keys}

    def put_back(self) -> None:
        """Make the server forget everything since the copy."""
        client = self._store.client
        client.delete(*client.keys(f"{self._store.prefix}*"))
        for key, (dump, ttl) in self._dumps.items():
            client.restore(key, ttl, dump)


def send(store: Store, *ids: str) -> None:
    """Publish a message of each id."""
    publish.publish(store, [compose("any.kind", {}, queue=QUEUE, sent_at_ms=0, id=id) for id in ids])


def ids(consumer: ManualConsumer) -> list[str]:
    """Return the ids of the messages that a consumer has in flight."""
    return [delivery.message.id for delivery in consumer.lease.in_flight.values()]


def read_queue(store: Store) -> Depth:
    """Return the depth of the queue."""
    return inspect_depth.read_depth(store, QUEUE)


@pytest.fixture
def consumer(store: Store) -> ManualConsumer:
    """Return a consumer that is registered."""
    consumer = ManualConsumer(store, QUEUE)
    consumer.settle_and_fetch()
    return consumer


def test_the_end_of_a_forgotten_run_settles_no_other_message(store: Store, consumer: ManualConsumer) -> None:
    """After the server forgot that it delivered `old`, its end leaves `new` in flight."""
    copy = Copy(store)
    send(store, "old")
    consumer.fetch()
    copy.put_back()
    send(store, "new")
    consumer.fetch()
    assert ids(consumer) == ["old", "new"]
    consumer.settle(SUCCEEDED, 1)
    assert (read_queue(store).in_flight, read_queue(store).counters["late"]) == (1, 1)
    consumer.settle(SUCCEEDED, 1)
    assert (read_queue(store).in_flight, read_queue(store).counters["settled"]) == (0, 1)


def test_messages_that_the_server_forgot_are_dropped_and_counted(
    store: Store, consumer: ManualConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """A message not in flight on the server is not started here; log and counter have the number."""
    send(store, "ended", "waits")
    consumer.fetch(1)
    copy = Copy(store)
    consumer.settle(SUCCEEDED)
    consumer.fetch(1)
    assert ids(consumer) == ["waits"]
    [waits] = consumer.lease.in_flight.values()
    copy.put_back()
    with caplog.at_level(logging.INFO):
        resume_lease(store, consumer.in_flight, consumer.lease, lease_ms=LEASE_MS)
    assert waits.lost
    assert not consumer.in_flight.may_start(waits)
    depth = read_queue(store)
    assert (depth.ready, depth.in_flight, depth.counters["forgotten"]) == (2, 0, 1)
    said = caplog.text
    assert "at least 1 deliveries" in said
    assert "1 messages in flight were lost to this process" in said
    assert "1 messages that are not in flight here were released" in said
    resume_lease(store, consumer.in_flight, consumer.lease, lease_ms=LEASE_MS)
    assert read_queue(store).counters["forgotten"] == 1, "it is counted once"


def test_a_consumer_that_the_server_never_saw_loses_what_it_has(store: Store) -> None:
    """A copy from before the consumer came makes its messages in flight lost to it, and delivered again."""
    send(store, "one")
    copy = Copy(store)
    consumer = ManualConsumer(store, QUEUE)
    consumer.fetch()
    [delivery] = consumer.lease.in_flight.values()
    copy.put_back()
    resume_lease(store, consumer.in_flight, consumer.lease, lease_ms=LEASE_MS)
    assert delivery.lost
    consumer.settle_and_fetch(1)
    assert [each.lost for each in consumer.lease.in_flight.values()] == [True, False]
    consumer.settle(SUCCEEDED)
    assert (read_queue(store).counters["late"], read_queue(store).counters["settled"]) == (1, 1)


def test_a_deleted_list_of_consumers_takes_nothing_from_the_living(
    store: Store, consumer: ManualConsumer
) -> None:
    """A consumer that the server forgot regains its lease and its messages in flight with its next call."""
    send(store, "one", "two", "three")
    consumer.fetch(3)
    keys = consumer.lease.keys
    store.client.delete(keys.consumers)
    assert script("renew_lease").run(store.client, keys.for_scripts, (consumer.lease.consumer, LEASE_MS)) == 2
    store.client.delete(keys.consumers)
    consumer.lease.orphans_searched = True
    consumer.settle(SUCCEEDED, 1)
    assert not consumer.lease.orphans_searched, "it looks for what others had in flight"
    store.client.delete(keys.consumers)
    resume_lease(store, consumer.in_flight, consumer.lease, lease_ms=LEASE_MS)
    consumer.settle(SUCCEEDED)
    depth = read_queue(store)
    assert (depth.in_flight, depth.counters["settled"], depth.counters.get("late", 0)) == (0, 3, 0)


def test_messages_of_a_dead_consumer_are_found_without_the_list(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages in flight of a consumer that is not listed come back after a lease, and the log says so."""
    dead, living = ManualConsumer(store, QUEUE), ManualConsumer(store, QUEUE)
    send(store, "one", "two")
    dead.fetch(2)
    store.client.delete(dead.lease.keys.consumers)
    living.settle_and_fetch()
    assert lease_orphaned_messages(store, QueueKeys(QUEUE, store.prefix), lease_ms=0) == 2
    assert lease_orphaned_messages(store, QueueKeys(QUEUE, store.prefix), lease_ms=0) == 0
    assert "2 messages in flight had no listed consumer" in caplog.text
    dead.lose_lease()
    living.fetch(2)
    assert sorted(ids(living)) == ["one", "two"]
    assert read_queue(store).counters["orphaned"] == 2


def test_a_batch_whose_tasks_were_forgotten_says_so_and_completes(
    store: Store, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing has the number of forgotten tasks; a wait closes a batch again if its close was forgotten."""
    with Client(settings=Settings(broker_url=url, key_prefix=store.prefix)) as client:
        batch = client.batch()
        copy = Copy(store)
        batch.send_many([Square(n=n) for n in range(3)])
        copy.put_back()
        batch.send(Square(n=3))
        copy = Copy(store)
        assert batch.close().sent == 1
        assert "has 1 of the 4 tasks" in caplog.text
        copy.put_back()
        consumer = ManualConsumer(store, "default")
        consumer.fetch()
        consumer.settle(SUCCEEDED)
        summary = batch.wait(60)
        assert (summary.complete, summary.succeeded) == (True, 1)


def test_a_running_worker_says_what_its_server_forgot(
    url: str, store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """All keys are deleted under a running worker: the loss is counted, and the next task runs."""
    with workers(settings_for(url, key_prefix=store.prefix), tmp_path) as (worker,):
        send_acts(store, file, "held", what="wait")
        eventually(lambda: read_names(file) == ["held"])
        store.client.delete(*store.client.keys(f"{store.prefix}*"))
        send_acts(store, file, "next")
        eventually(lambda: read_names(file, "end") == ["next"])
        Path(f"{file}.go").touch()
        eventually(lambda: inspect_depth.read_depth(store, "default").counters.get("forgotten") == 1)
        eventually(lambda: "at least 1 deliveries" in worker.log)
        assert "1 messages in flight were lost to this process" in worker.log
        eventually(lambda: inspect_depth.read_depth(store, "default").in_flight == 0)
