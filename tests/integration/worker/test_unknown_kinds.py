"""Messages of a kind that a worker does not have: another process takes them, or they die after a time."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from celery import Celery

from millpond.broker import server
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.consume.fetcher import WATCHED_POLL_SECONDS
from millpond.broker.control import cancel
from millpond.broker.inspect import dead_letters, depth, task_lookup
from millpond.broker.inspect.purge import purge_queue
from millpond.broker.outgoing import compose
from millpond.broker.publish import Full, publish
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.noted import read_names, read_notes, send_acts
from tests.harness.one_worker import OneWorker, settings_for, workers

#: Longer than any of these tests: a message put aside and not taken stays.
LONG = {"unknown_kind_seconds": 600}


def old(url: str, **queue: Any) -> Settings:
    """Return the settings of a worker that does not have the kind."""
    return settings_for(url, kinds=(), queue=LONG | queue)


def new(url: str, **queue: Any) -> Settings:
    """Return the settings of a worker that has the kind, with one slot and no prefetch."""
    return settings_for(url, queue=LONG | queue, pool={"concurrency": 1, "prefetch": 0})


def square(store: Store, **more: Any) -> str:
    """Send a task that both workers have."""
    message = compose("squares.square", {"n": 7}, queue="default", sent_at_ms=0, **more)
    publish(store, [message])
    return message.id


def is_aside(store: Store, count: int) -> bool:
    """True when so many messages wait for another process and nothing is in flight."""
    seen = depth.read_depth(store, "default")
    return (seen.delayed, seen.in_flight, seen.ready) == (count, 0, 0)


@pytest.fixture(scope="module")
def old_worker(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    """Run a worker that does not have the kind."""
    with workers(old(module_url), tmp_path_factory.mktemp("old"), first=9) as (running,):
        yield running


@pytest.fixture
def old_store(old_worker: OneWorker, module_store: Store) -> Iterator[Store]:
    """Return a store of that worker's database; empty its queue after the test."""
    yield module_store
    purge_queue(module_store, "default")
    module_store.client.delete("millpond:{default}:dead")


def test_a_process_that_comes_later_takes_it(
    module_url: str, old_store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """In a rolling upgrade messages of a new kind wait for a process, in order, with no delivery counted."""
    batch = record.open_batch(old_store)
    wanted = [f"{n:02}" for n in range(40)]
    [first, *_] = send_acts(old_store, file, *wanted, batch=batch)
    record.close_batch(old_store, batch)
    eventually(lambda: is_aside(old_store, 40))
    place = task_lookup.find_task(old_store, first)
    assert place is not None
    assert (place.state, place.wants_kind) == ("delayed", True)
    with workers(new(module_url), tmp_path):
        eventually(lambda: record.read_summary(old_store, batch).complete)
    assert read_names(file) == wanted
    assert {note.deliveries for note in read_notes(file)} == {1}
    summary = record.read_summary(old_store, batch)
    assert (summary.succeeded, summary.failed) == (40, 0)
    assert not old_store.client.keys("*aside*")


def test_beside_one_that_has_it_each_runs_soon_and_once(
    module_url: str, old_store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """As in the README beside `millpond up`, an idle process that has the kind takes it within a moment.

    It does not take it only when it looks by itself.
    """
    took = []
    with workers(new(module_url), tmp_path):
        for n in range(20):
            began = time.monotonic()
            send_acts(old_store, file, str(n))
            eventually(lambda n=n: str(n) in read_names(file, "end"), every_seconds=0.005)
            took.append(time.monotonic() - began)
        assert median(took) < 2
        assert max(took) < WATCHED_POLL_SECONDS - 1
        assert read_names(file) == [str(n) for n in range(20)]
        assert not list(dead_letters.read_dead_letters(old_store, "default"))


def test_a_process_without_room_keeps_it_alive(
    url: str, plain_store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """While the only process with a kind is busy, no message of that kind becomes a dead letter."""
    short = {"unknown_kind_seconds": 0.3}
    with workers(new(url, **short), tmp_path), workers(old(url, **short), tmp_path, first=9):
        send_acts(plain_store, file, "long", what="wait")
        eventually(lambda: read_names(file) == ["long"])
        send_acts(plain_store, file, "next")
        eventually(lambda: is_put_off(plain_store))
        Path(f"{file}.go").touch()
        eventually(lambda: read_names(file, "end") == ["long", "next"])
    assert not list(dead_letters.read_dead_letters(plain_store, "default"))


def is_put_off(store: Store) -> bool:
    """True when a message put aside has a new time, a minute later, and is no dead letter."""
    [*due] = store.client.zrange("millpond:{default}:delayed", 0, -1, withscores=True)
    return bool(due) and due[0][1] > server.server_time_ms(store) + 30_000


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock Celery"])
def test_a_kind_without_a_process_becomes_a_dead_letter_after_its_time(
    url: str, plain_store: Store, tmp_path: Path, eventually: Eventually, stock: bool
) -> None:
    """The message becomes a dead letter at its time, not before; its batch counts it, its unique key is free.

    The reason names the worker to start.
    """
    with workers(old(url, unknown_kind_seconds=1.5), tmp_path, first=9) as (worker,):
        batch = None
        began = time.monotonic()
        if stock:
            with Celery(broker=url) as app:
                id = app.send_task("shop.charge", (42,), queue="default").id
        else:
            batch = record.open_batch(plain_store)
            message = compose(
                "shop.charge", {}, queue="default", sent_at_ms=0, batch=batch, claim="order", claim_ms=0
            )
            publish(plain_store, [message])
            record.close_batch(plain_store, batch)
            id = message.id
        eventually(lambda: list(dead_letters.read_dead_letters(plain_store, "default")))
        assert time.monotonic() - began > 1.4
        [letter] = dead_letters.read_dead_letters(plain_store, "default")
        assert (letter.task_id, letter.reason, letter.kind) == (id, "unknown kind", "shop.charge")
        assert letter.detail["error"] == (
            "no process that serves `default` has the kind `shop.charge`: "
            "start a worker with MILLPOND_KINDS=MODULE, the module that declares it"
        )
        assert "does not have the kind shop.charge" in worker.log
        assert is_aside(plain_store, 0)
        assert not plain_store.client.keys("*aside*")
        if batch is not None:
            assert record.read_summary(plain_store, batch).failed == 1
            assert record.read_summary(plain_store, batch).complete
            assert not plain_store.client.keys("*once:*")


def test_thousands_of_them_hold_up_nobody(old_store: Store, file: Path, eventually: Eventually) -> None:
    """Thousands of such messages are handed out once each; then the worker turns no more than when idle."""

    def seconds_of_200() -> float:
        batch = record.open_batch(old_store)
        began = time.monotonic()
        for _ in range(200):
            square(old_store, batch=batch)
        record.close_batch(old_store, batch)
        eventually(lambda: record.read_summary(old_store, batch).complete)
        return time.monotonic() - began

    before = handed_out(old_store)
    alone = seconds_of_200()
    send_acts(old_store, file, *map(str, range(5_000)))
    eventually(lambda: is_aside(old_store, 5_000), 30)
    assert handed_out(old_store) == before + 5_200
    assert seconds_of_200() < 4 * alone + 1
    assert handed_out(old_store) == before + 5_400


def handed_out(store: Store) -> int:
    """Return how many messages were fetched, without those that a busy worker returned unstarted."""
    counters = depth.read_depth(store, "default").counters
    return counters.get("fetched", 0) - counters.get("returned", 0)


def test_it_counts_against_the_bound_and_can_be_purged(
    url: str, plain_store: Store, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """Messages that a worker has put aside count against the bound, and can be purged."""
    with workers(old(url, bound=10), tmp_path, first=9):
        send_acts(plain_store, file, *map(str, range(10)))
        eventually(lambda: is_aside(plain_store, 10))
        [said] = publish(plain_store, [compose("squares.square", {"n": 1}, queue="default", sent_at_ms=0)])
        assert isinstance(said, Full)
        assert purge_queue(plain_store, "default") == 10
        [said] = publish(plain_store, [compose("squares.square", {"n": 1}, queue="default", sent_at_ms=0)])
        assert not isinstance(said, Full)
        assert not plain_store.client.keys("*aside*")


def test_it_is_cancelled_and_expires_as_what_waits(
    old_store: Store, file: Path, eventually: Eventually
) -> None:
    """A message put aside is cancelled at once, and expires at its time; its batch completes."""
    now_ms = server.server_time_ms(old_store)
    kept, soon = record.open_batch(old_store), record.open_batch(old_store)
    [id] = send_acts(old_store, file, "cancelled", batch=kept)
    send_acts(old_store, file, "expires", batch=soon, expires_ms=now_ms + 3_000)
    for batch in (kept, soon):
        record.close_batch(old_store, batch)
    eventually(lambda: is_aside(old_store, 2))
    cancel.cancel_task(old_store, id)
    assert record.read_summary(old_store, kept).cancelled == 1
    eventually(lambda: record.read_summary(old_store, soon).expired == 1)
    assert record.read_summary(old_store, soon).complete
    assert not old_store.client.keys("*aside*")
    assert not list(dead_letters.read_dead_letters(old_store, "default"))


def test_of_many_kinds_not_all_are_put_aside(old_store: Store, eventually: Eventually) -> None:
    """The number of unknown kinds is bounded, so that a sender of new ones cannot slow every publisher."""
    messages = [compose(f"kind.{n}", {}, queue="default", sent_at_ms=0) for n in range(600)]
    publish(old_store, messages)
    eventually(lambda: len(list(dead_letters.read_dead_letters(old_store, "default"))) == 100)
    eventually(lambda: is_aside(old_store, 500))


def test_a_worker_names_at_its_start_what_it_cannot_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its start a worker names the kinds of its queues that lack an extra, and the command for it."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['minijinja'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(blocked), prepend=":")
    settings = settings_for(url, pool={"queues": ["default", "email"]}, kinds=())
    with workers(settings, tmp_path) as (worker,):
        pass
    [line] = [line for line in worker.log.splitlines() if "cannot run" in line]
    assert "cannot run email.campaign, email.send: minijinja is not installed: install '.[email]'" in line


def test_a_message_of_the_oldest_protocol_waits_too(old_store: Store, eventually: Eventually) -> None:
    """A message of Celery's protocol 1 is put aside too: its kind is in the body, which no script reads."""
    from base64 import b64encode

    body = b64encode(json.dumps({"task": "shop.charge", "id": "1", "args": [], "kwargs": {}}).encode())
    properties = {"delivery_tag": "1", "delivery_info": {}, "body_encoding": "base64"}
    message = {"body": body.decode(), "content-type": "application/json", "content-encoding": "utf-8"}
    old_store.client.lpush("default", json.dumps({**message, "headers": {}, "properties": properties}))
    eventually(lambda: is_aside(old_store, 1))
    assert purge_queue(old_store, "default") == 1
