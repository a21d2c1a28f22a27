"""Cancel waiting tasks, with no worker to fetch them: they are settled, and counted, at once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import pytest

from millpond.broker import keys, server
from millpond.broker.connection import Store
from millpond.broker.control import cancel, drain, state
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.outcomes import SUCCEEDED, DeadLetter, Delay, Retry
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.tasks.squares.contract import Square
from tests.harness.manual_consumer import ManualConsumer

Cancel = Callable[..., cancel.Cancellation]


def test_waiting_tasks_are_settled_and_those_of_others_keep_their_order(client: Client, store: Store) -> None:
    """Of two batches in one queue, one is cancelled and completes; the other keeps its messages in order."""
    with client.batch() as kept, client.batch() as dropped:
        for n in range(700):
            dropped.send_many([Square(n=n)])
            kept.send_many([Square(n=n)])
        dropped.send(Square(n=1), delay=timedelta(hours=1))
        dropped.send(Square(n=1), priority=9)
        kept.send(Square(n=2), delay=timedelta(hours=1))
    order = [m for m in store.client.lrange(f"{store.prefix}default", 0, -1) if kept.id.encode() in m]
    assert dropped.cancel().settled == 702
    summary = dropped.summary()
    assert (summary.complete, summary.cancelled, summary.sent) == (True, 702, 702)
    assert (kept.summary().settled, kept.summary().sent) == (0, 701)
    assert store.client.lrange(f"{store.prefix}default", 0, -1) == order
    depth = inspect_depth.read_depth(store, "default")
    assert (depth.ready, depth.delayed, depth.counters["settled"]) == (700, 1, 702)


def test_a_task_is_found_and_cancelled_wherever_it_waits(client: Client, store: Store) -> None:
    """The answer has the place where the task waited; the task is settled, and its message is gone."""
    with client.batch() as batch:
        waits = batch.send(Square(n=1), queue="email")
        later = batch.send(Square(n=2), delay=timedelta(hours=1))
    client.send(Square(n=3), queue="email")
    found = client.find(waits.id)
    assert found is not None
    assert (found.state, found.queue, found.kind) == ("ready", "email", "squares.square")
    assert (found.batch, found.behind) == (batch.id, 0)
    assert (place := client.find(later.id)) is not None
    assert place.state == "delayed"
    assert (place.due_ms or 0) > server.server_time_ms(store) + 3_500_000
    for id in (waits.id, later.id):
        assert client.cancel(id).settled == 1
        assert client.find(id) is None
    assert batch.summary().cancelled == 2
    assert batch.summary().complete


@pytest.mark.parametrize("id", ["bestellung-ü", "emoji 🐟", 'quoted "x" \\ y', "a/b"])
def test_an_id_may_have_any_characters(client: Client, store: Store, id: str) -> None:
    """JSON writes some characters in several ways: the task is found and cancelled all the same."""
    for delay in (None, timedelta(hours=1)):
        client.send(Square(n=1), id=id, delay=delay)
        assert client.find(id) is not None
        assert client.cancel(id).settled == 1
    depth = inspect_depth.read_depth(store, "default")
    assert (depth.ready, depth.delayed) == (0, 0)


def test_cancelling_says_of_what_ended_that_it_is_not_there(client: Client, store: Store) -> None:
    """`cancel` reports an ended task, an unknown task and a dead letter as not cancelled."""
    done, failed = client.send(Square(n=1)), client.send(Square(n=2))
    consumer = ManualConsumer(store, "default")
    consumer.fetch(2)
    consumer.settle(SUCCEEDED, 1)
    held = client.find(failed.id)
    assert held is not None
    assert (held.state, held.process) == ("running", consumer.in_flight.name)
    consumer.settle(DeadLetter("FinalError", "it failed"))
    for id in (done.id, "never-was"):
        answer = client.cancel(id)
        assert (answer.found, answer.settled) == (None, 0)
    answer = client.cancel(failed.id)
    assert answer.found is not None
    assert answer.found.state == "dead"
    assert dead_letters.requeue(store, "default", answer.found.letter or "")
    assert failed.id not in state.read_state(store).cancelled, "a dead letter that is requeued runs"


def test_a_process_reads_what_was_cancelled_since(client: Client, store: Store) -> None:
    """Only new cancellations are read, however many are old; where their list has a gap, all are."""
    old = {f"old-{n}": server.server_time_ms(store) + 3_600_000 for n in range(20_000)}
    store.client.zadd(keys.cancelled_key(store.prefix), old)
    client.cancel("first")
    known = state.read_state(store)
    assert known.cancelled >= {*old, "first"}
    store.client.zrem(keys.cancelled_key(store.prefix), "old-7")  # seen by a process that reads everything
    batch = client.batch()
    client.cancel("name with a space")
    client.cancel("ended", terminate=True)
    batch.cancel()
    later = state.read_state(store, known)
    assert later.epoch == known.epoch + 3
    new = {"name with a space", "ended", keys.batch_key(batch.id, store.prefix)}
    assert later.cancelled == {*old, "first", *new}
    assert later.terminated == {"ended"}
    assert state.read_state(store, later) is later
    drain.drain_pool(store, "email")  # also any change by an older client: it is not in the list
    client.cancel("after the gap")
    everything = state.read_state(store, later)
    assert everything.drained == {"email"}
    assert "after the gap" in everything.cancelled
    assert "old-7" not in everything.cancelled
    assert state.find_cancelled(store, ["old-7", "old-8", "first"]) == {"old-8", "first"}


def test_a_server_that_forgot_cancellations_is_read_anew(client: Client, store: Store) -> None:
    """Where another cancellation has the epoch of a known one, everything is read."""
    client.cancel("kept")
    client.cancel("forgotten")
    known = state.read_state(store)
    store.client.decr(keys.epoch_key(store.prefix))
    store.client.rpop(keys.cancellations_key(store.prefix))
    store.client.zrem(keys.cancelled_key(store.prefix), "forgotten")
    for id in ("in its place", "later"):
        client.cancel(id)
    assert state.read_state(store, known).cancelled == {"kept", "in its place", "later"}


def test_the_cancellation_of_what_never_was_is_kept_for_an_hour(client: Client, store: Store) -> None:
    """The cancellation of an unknown task is kept for an hour, that of a running or waiting task longer."""
    running, waits = client.send(Square(n=1)), client.send(Square(n=2))
    ManualConsumer(store, "default").fetch(1)
    hours = {}
    for id in (running.id, waits.id, "never-was"):
        cancel.cancel_task(store, id, terminate=True, timeout_seconds=0.1)  # no worker process acknowledges
        until = store.client.zscore(keys.cancelled_key(store.prefix), id)
        hours[id] = round((until - server.server_time_ms(store)) / 3_600_000)
    assert hours == {running.id: 7 * 24, waits.id: 7 * 24, "never-was": 1}


def test_the_search_for_a_batch_ends_with_its_last_task(client: Client, store: Store) -> None:
    """A batch without waiting tasks costs no search of the others' messages."""
    with client.batch() as batch:
        batch.send(Square(n=1))
    assert batch.cancel().settled == 1
    client.send_many([Square(n=n) for n in range(10)])
    before = store.client.info("commandstats").get("cmdstat_lrange", {}).get("calls", 0)
    assert batch.cancel().settled == 0
    assert store.client.info("commandstats").get("cmdstat_lrange", {}).get("calls", 0) == before


def test_a_claim_ends_with_the_task_that_is_cancelled(client: Client) -> None:
    """The unique key of a cancelled task is free for another send."""
    message = Message(Square(n=1), once="order-42")
    first = client.send_each([message])
    (sent,) = first
    assert client.cancel(sent.id).settled == 1
    (again,) = client.send_each([message])
    assert getattr(again, "duplicate_of", "refused") is None


@pytest.mark.parametrize("action", ["replace", "delay"])
@pytest.mark.parametrize("what", ["task", "batch"])
def test_a_cancelled_task_that_asks_for_a_retry_is_over(
    client: Client, store: Store, what: str, action: Literal["replace", "delay"]
) -> None:
    """A retry of a task cancelled meanwhile does not wait for its time: its batch is complete at once."""
    with client.batch() as batch:
        task = batch.send(Square(n=1), once="one")
    consumer = ManualConsumer(store, "default")
    consumer.fetch()
    state.acknowledge_epoch(store, consumer.in_flight.name, state.ALL_FUTURE)
    if what == "task":
        assert client.cancel(task.id).settled == 0
    else:
        assert batch.cancel().settled == 0
    later_ms = server.server_time_ms(store) + 3_600_000
    consumer.settle(Delay(later_ms) if action == "delay" else Retry("the next run", later_ms))
    assert inspect_depth.read_depth(store, "default").delayed == 0
    assert (batch.summary().cancelled, batch.summary().complete) == (1, True)
    assert client.send(Square(n=1), once="one").duplicate_of is None


def test_a_process_that_ends_is_not_waited_for(client: Client, store: Store) -> None:
    """A process that starts nothing has acknowledged all future changes; one that left is forgotten."""
    client.send(Square(n=1))
    consumer = ManualConsumer(store, "default")
    consumer.fetch(1)
    deaf = cancel.cancel_task(store, "another", timeout_seconds=0.05)
    assert deaf.unacknowledged == (consumer.in_flight.name,)
    state.acknowledge_epoch(store, consumer.in_flight.name, state.ALL_FUTURE)
    assert cancel.cancel_task(store, "a-third", timeout_seconds=0.05).unacknowledged == ()
    state.forget_process(store, consumer.in_flight.name)
    assert cancel.cancel_task(store, "a-fourth", timeout_seconds=0.05).unacknowledged == deaf.unacknowledged
