"""Stock Celery on the other side of the wire: its clients publish to our worker, and read our messages."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, depth
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.tasks.app import celery_app
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.noted import read_names, read_notes
from tests.harness.one_worker import OneWorker, settings_for, workers
from tests.harness.run_to_end import run_to_end

Stock = Callable[..., float]
ACT = "broker.act"


@pytest.fixture(scope="module")
def worker(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    with workers(settings_for(module_url), tmp_path_factory.mktemp("wire")) as (running,):
        yield running


@pytest.fixture
def control(module_url: str, worker: OneWorker) -> Any:
    """Return stock Celery's remote control of the worker."""
    return Celery("stock", broker=module_url, set_as_current=False).control


def ask(control: Any, method: str) -> Any:
    """Return the one worker's answer to an inspection."""
    [answer] = getattr(control.inspect(timeout=20, limit=1), method)().values()
    return answer


@pytest.fixture(scope="module")
def stock(module_url: str, worker: OneWorker) -> Iterator[Stock]:
    """Return `stock(*calls)`: it publishes from a process that knows nothing of Millpond, and says when."""
    script = Path(__file__).parent / "stock_client.py"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script), module_url], **pipes) as process:

        def publish(*calls: Any, protocol: int = 2) -> float:
            print(json.dumps([protocol, *calls]), file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield publish
        process.stdin.close()


def test_a_stock_client_publishes_whatever_it_likes(stock: Stock, file: Path, eventually: Eventually) -> None:
    """Plain, delayed, prioritised, chained and grouped tasks of a stock client all run, and once."""

    def call(name: str, **options: Any) -> list[Any]:
        return [ACT, {"file": str(file), "name": name}, options]

    eta = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    stock(
        call("plain"),
        call("countdown", countdown=0.5),
        call("eta", eta=eta),
        call("urgent", priority=0),
        call("patient", priority=9),
        call("expiring", expires=600),
        {"chain": [call("first"), call("second"), call("third")]},
        {"group": [call("one"), call("two")]},
    )
    eventually(lambda: len(read_names(file)) >= 11, 20)
    expected = "plain countdown eta urgent patient expiring first second third one two"
    assert sorted(read_names(file)) == sorted(expected.split())
    order = [name for name in read_names(file) if name in ("first", "second", "third")]
    assert order == ["first", "second", "third"]


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_stock_eta_is_kept(protocol: int, stock: Stock, file: Path, eventually: Eventually) -> None:
    """A stock client's delayed task does not run before its time, by either of Celery's protocols."""
    later = [ACT, {"file": str(file), "name": "later"}, {"countdown": 3}]
    sent = stock(later, protocol=protocol)
    eventually(lambda: read_names(file) == ["later"], 20)
    [note] = read_notes(file)
    assert note.at >= sent + 3


def test_an_eta_moves_to_the_delayed_and_takes_no_slot(
    stock: Stock, module_url: str, module_store: Store, file: Path, eventually: Eventually
) -> None:
    """Tasks that a stock client sent for later wait in Redis from the first fetch on, however many."""
    later = [[ACT, {"file": str(file), "name": "later"}, {"countdown": 900}]] * 20
    stock(*later)
    eventually(lambda: depth.read_depth(module_store, "default").delayed == 20)
    assert depth.read_depth(module_store, "default").in_flight == 0
    stock([ACT, {"file": str(file), "name": "now"}, {}])
    eventually(lambda: read_names(file) == ["now"])
    assert purge(module_url) == 20


def purge(url: str) -> int:
    app = celery_app(Settings(broker_url=url))
    with app.connection_for_write() as connection:
        return int(app.control.purge(connection=connection))


def test_an_expired_task_does_not_run(stock: Stock, file: Path, eventually: Eventually) -> None:
    """A task whose deadline has passed when its turn comes is dropped, and the next task runs."""
    stock(
        [ACT, {"file": str(file), "name": "stale"}, {"expires": -5}],
        [ACT, {"file": str(file), "name": "fresh"}, {}],
    )
    eventually(lambda: read_names(file) == ["fresh"])
    assert read_names(file) == ["fresh"]


def test_remote_control_works(control: Any, module_url: str, file: Path, eventually: Eventually) -> None:
    """`celery call` and `celery inspect` find our worker as they find a stock one."""
    arguments = json.dumps({"file": str(file), "what": "wait"})
    celery(module_url, "call", ACT, "--queue", "default", "--kwargs", arguments)
    eventually(lambda: len(read_notes(file)) == 1)
    [request] = ask(control, "active")
    assert request["name"] == ACT
    assert ask(control, "ping") == {"ok": "pong"}
    assert ask(control, "stats")["pool"]["max-concurrency"] == 4
    assert ACT in ask(control, "registered")
    Path(f"{file}.go").touch()
    eventually(lambda: len(read_notes(file, "end")) == 1)


def celery(url: str, *words: str) -> str:
    """Run the stock command."""
    command = [sys.executable, "-m", "celery", "--quiet", "-b", url, *words]
    done = run_to_end(command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_consumer_is_added_and_taken_away(
    control: Any, stock: Stock, worker: OneWorker, file: Path, eventually: Eventually
) -> None:
    """`add_consumer` makes the worker take from another queue, and `cancel_consumer` ends that."""
    stock([ACT, {"file": str(file), "name": "extra"}, {"queue": "extra"}])
    control.add_consumer("extra")
    eventually(lambda: read_names(file) == ["extra"])
    control.cancel_consumer("extra")
    eventually(lambda: "Canceling queue extra" in worker.log)
    stock([ACT, {"file": str(file), "name": "unwanted"}, {"queue": "extra"}])
    stock([ACT, {"file": str(file), "name": "wanted"}, {}])
    eventually(lambda: "wanted" in read_names(file))
    assert "unwanted" not in read_names(file)


def test_a_message_of_an_added_queue_starts_at_once(
    control: Any, stock: Stock, worker: OneWorker, file: Path, eventually: Eventually
) -> None:
    """An idle worker waits for messages of its queues for up to ten seconds, and for the added one too."""
    began = time()
    for name in ("added", "added.later", "added.last"):  # a wait begins as the message of each is settled
        control.add_consumer(name)
        eventually(lambda name=name: f"Started consuming from {name}\n" in worker.log)
        stock([ACT, {"file": str(file), "name": name}, {"queue": name}])
        eventually(lambda name=name: name in read_names(file), 10)
    assert time() - began < 12  # on a busy machine; each took eight seconds or more


def test_ready_messages_are_where_stock_tools_count_them(url: str, store: Store) -> None:
    """`LLEN queue` and its priority lists count the waiting messages; `celery purge` empties them."""
    store = Store(store.client)
    for priority in (0, 2, 3, 6, 9):
        publish(store, [compose(ACT, {}, queue="mill", sent_at_ms=0, priority=priority)])
    step = "\x06\x16"
    lengths = [store.client.llen(key) for key in ("mill", f"mill{step}3", f"mill{step}6", f"mill{step}9")]
    assert lengths == [2, 1, 1, 1]
    assert "Purged 5 messages" in celery(url, "purge", "-f", "-Q", "mill")
    assert depth.read_depth(store, "mill").ready == 0


def read_by_stock(url: str, queue: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Read one message with a stock consumer; return its body, headers and properties."""
    with Connection(url) as connection, connection.channel() as channel:
        raw = channel.basic_get(queue, no_ack=True)
        message = channel.message_to_python(raw) if isinstance(raw, dict) else raw
        return message.decode(), message.headers, message.properties


def test_our_messages_are_stock_messages(url: str, store: Store) -> None:
    """A message of our transport or our client is, part by part, stock Celery's own."""
    ours = celery_app(Settings(broker_url=url))
    theirs = Celery("stock", broker=url, set_as_current=False)
    theirs.conf.task_ignore_result = True
    for app, queue in ((theirs, "theirs"), (ours, "transport")):
        app.send_task(ACT, kwargs={"n": 1}, queue=queue, ignore_result=True, priority=3, expires=60)
    now = int(time() * 1000)
    message = compose(ACT, {"n": 1}, queue="composed", sent_at_ms=now, priority=3, expires_ms=now + 60_000)
    publish(Store(store.client), [message])
    expected = _comparable(*read_by_stock(url, "theirs" + "\x06\x16" + "3"))
    for queue in ("transport", "composed"):
        assert _comparable(*read_by_stock(url, queue + "\x06\x16" + "3")) == expected


def _comparable(body: Any, headers: dict[str, Any], properties: dict[str, Any]) -> Any:
    """Leave out the parts that differ from message to message, and our own header."""
    changing = {"id", "root_id", "origin", "expires", "millpond"}
    shown = {name: value for name, value in headers.items() if name not in changing}
    assert headers["root_id"] == headers["id"] == properties["correlation_id"]
    kept = {"priority", "delivery_mode", "body_encoding"}
    return (
        body,
        shown,
        sorted(headers.keys() - {"millpond"}),
        {k: properties[k] for k in kept},
        properties.keys(),
    )


def test_nothing_was_buried(worker: OneWorker, module_store: Store) -> None:
    """No message that stock clients sent to this worker became a dead letter."""
    assert not [
        (letter.reason, letter.detail) for letter in dead_letters.read_dead_letters(module_store, "default")
    ]
