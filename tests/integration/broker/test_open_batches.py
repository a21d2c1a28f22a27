"""Batches of other producers: fed by several processes, found and finished after those were killed."""

import getpass
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from millpond import main
from millpond.broker import audit
from millpond.broker.connection import Store
from millpond.broker.outcomes import SUCCEEDED, Retry, Succeeded
from millpond.broker.outgoing import compose
from millpond.producer.batch import Batch
from millpond.producer.client import Client
from millpond.tasks.context import Context
from millpond.tasks.errors import BatchClosed
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from millpond.worker.handler_services import Outbox
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.manual_consumer import ManualConsumer
from tests.harness.own_server import OwnServer, run_own_server

FEED = """
import sys, time
from millpond import Client, Square
with Client() as client:
    batch = client.open_batch(sys.argv[1]) if sys.argv[1:] else client.batch("of one who dies")
    with batch:
        batch.send_many(Square(n=n) for n in range(50))
        print(batch.id, flush=True)
        time.sleep(60)
"""


@pytest.fixture
def chosen(store: Store, url: str) -> Settings:
    """Return settings of the store."""
    return Settings(broker_url=url, key_prefix=store.prefix)


@pytest.fixture
def millpond(
    configure: Callable[[str, str], None], url: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[Any]]]:
    """Return the command, in this process: it gives its exit code and the lines of its --json."""
    configure(url, prefix)

    def run(*words: str) -> tuple[int, list[Any]]:
        code = main([*words, "--json"])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def feeder(chosen: Settings, *words: str) -> tuple["subprocess.Popen[str]", str]:
    """Start a producer that fills a batch and does not come to close it; return it and the batch's id."""
    argv = [sys.executable, "-P", "-c", FEED, *words]
    process = subprocess.Popen(argv, env=child_environment(chosen), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_batch_whose_producers_were_killed_is_found_and_closed(
    chosen: Settings, client: Client, millpond: Callable[..., tuple[int, list[Any]]]
) -> None:
    """Two processes feed a batch and are killed: it is listed as open, and closed, with all they sent."""
    client.batch("closed").close()
    first, id = feeder(chosen)
    second, _ = feeder(chosen, id)
    for process in (first, second):
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, [found] = millpond("batches", "--open")
    assert (code, found["id"], found["description"], found["sent"]) == (0, id, "of one who dies", 100)
    assert 0 <= client.now_ms() - found["last_sent_at_ms"] < 60_000
    code, [line] = millpond("batch", id, "--close")
    assert (code, line["summary"]["closed_at_ms"] is not None) == (0, True)
    assert millpond("batches", "--open") == (0, [])
    with pytest.raises(BatchClosed):
        client.open_batch(id).send(Square(n=1))


def test_a_batch_is_cancelled_from_the_command_line(
    client: Client, millpond: Callable[..., tuple[int, list[Any]]]
) -> None:
    """An abandoned batch is cancelled by its id, a task of it by its own; the audit has a line for each."""
    batch = client.batch("abandoned")
    sent = [batch.send(Square(n=n), delay=timedelta(hours=1)) for n in range(3)]
    code, [shown] = millpond("task", sent[0].id)
    assert (code, shown["state"], shown["queue"], shown["progress"]) == (0, "delayed", "default", None)
    code, [line] = millpond("task", sent[0].id, "--cancel")
    assert (code, line["settled"], line["unacknowledged"]) == (0, 1, [])
    code, [line] = millpond("task", sent[0].id)
    assert (code, line["state"]) == (1, "unknown")
    code, [line] = millpond("batch", batch.id, "--cancel")
    assert (code, line["summary"]["cancelled"], line["summary"]["complete"]) == (0, 3, True)
    changes = list(audit.read_changes(client.store, limit=2))
    assert [each.action for each in changes] == [
        f"cancelled batch {batch.id}",
        f"cancelled task {sent[0].id}",
    ]
    assert {each.user for each in changes} == {f"{getpass.getuser()}@{gethostname()} by command"}


def test_a_retried_task_counts_once(client: Client, store: Store) -> None:
    """A run that ends in a retry settles nothing in its batch; the last run does."""
    with client.batch() as batch:
        sent = batch.send(Square(n=1))
    consumer = ManualConsumer(store, "default")
    for _ in range(2):
        consumer.fetch(1)
        again = compose("squares.square", {"n": 1}, queue="default", sent_at_ms=0, id=sent.id, batch=batch.id)
        consumer.settle(Retry(again.payload, 0))
        assert (batch.summary().settled, batch.summary().pending) == (0, 1)
    consumer.fetch(1)
    consumer.settle(SUCCEEDED)
    assert (batch.summary().succeeded, batch.summary().sent, batch.summary().complete) == (1, 1, True)


def test_a_body_is_given_nothing_that_closes_its_batch() -> None:
    """A body knows its batch's id; neither its context nor its outbox can close, feed or cancel it."""
    context = Context(batch="b", outbox=Outbox("id", lambda: 0))
    public = {name for name in dir(context) if not name.startswith("_")}
    assert not [name for name in public if isinstance(getattr(context, name), Batch | Client)]
    assert context.batch == "b"
    outbox_names = {name for name in dir(context.outbox) if not name.startswith("_")}
    assert outbox_names == {"send_many", "send_continuation"}
    assert context.outbox._compose_message(Square(n=1)).batch is None


def test_a_reader_goes_on_after_the_server_was_killed_and_restarted(
    tmp_path: Path, eventually: Eventually
) -> None:
    """A stream of results resumes by itself behind the last one: none is missing, none comes twice."""
    lines = ["appendonly yes", "appendfsync always"]
    with run_own_server(OwnServer(embedded_binary(), tmp_path, lines)) as server:
        client = Client(server.url)
        store = Store(server.client)
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(300))
        consumer, read = ManualConsumer(store, "default"), list[int]()
        consumer.fetch(300)
        detail = [Succeeded(json.dumps({"value": n})) for n in range(300)]
        deliveries = list(consumer.lease.in_flight.values())
        for delivery, outcome in zip(deliveries[:150], detail, strict=False):
            consumer.lease.queue_outcome(delivery, outcome)
        while consumer.lease.outcomes:
            consumer.settle_and_fetch()
        results = batch.results()
        reader = threading.Thread(target=lambda: read.extend(result.value for result in results))
        reader.start()
        eventually(lambda: len(read) == 150)
        server.kill()
        server.start()
        for delivery, outcome in zip(deliveries[150:], detail[150:], strict=True):
            consumer.lease.queue_outcome(delivery, outcome)
        while consumer.lease.outcomes:
            consumer.settle_and_fetch()
        reader.join(30)
        assert read == list(range(300))
