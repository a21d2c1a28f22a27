"""Messages that no worker can run: each becomes a dead letter with the reason, and the next one runs."""

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, depth
from millpond.broker.outgoing import compose
from millpond.broker.publish import Accepted, publish
from tests.conftest import Eventually
from tests.harness.manual_consumer import ManualConsumer
from tests.harness.noted import read_names, send_acts
from tests.harness.one_worker import OneWorker, settings_for, workers


@pytest.fixture(scope="module", params=["threads", "prefork"])
def worker(
    request: pytest.FixtureRequest,
    module_url: str,
    module_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OneWorker]:
    settings = settings_for(module_url, pool={"executor": request.param})
    with workers(settings, tmp_path_factory.mktemp("bad")) as (running,):
        yield running
    module_store.client.delete("default", "millpond:{default}:dead")


def good(file: Path, name: str) -> dict[str, Any]:
    """Return a message that runs."""
    made: dict[str, Any] = json.loads(
        compose("broker.act", act(file, name), queue="default", sent_at_ms=0).payload
    )
    return made


def act(file: Path, name: str) -> dict[str, Any]:
    """Return the arguments of a task that notes its name."""
    return {"file": str(file), "name": name}


def altered(**changes: Any) -> Callable[[Path], bytes]:
    """Return a maker of good messages with other parts, by `part` or `part__of_it`; None: left out."""

    def make(file: Path) -> bytes:
        message = good(file, "bad")
        for path, value in changes.items():
            *folders, last = path.replace("__", " ").split()
            part = message
            for folder in folders:
                part = part[folder]
            part[last] = value
            if value is None:
                del part[last]
        return json.dumps(message).encode()

    return make


def body(value: object) -> str:
    """Encode a body as kombu does."""
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: A message, and a word of the reason that its dead letter has.
BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "not JSON": (lambda _: b"\xff\xfe{", "not a message"),
    "a list": (lambda _: b"[1, 2]", "not a message"),
    "null": (lambda _: b"null", "not a message"),
    "nested too deep": (lambda _: b"[" * 100_000, "not a message"),
    "no headers": (altered(headers=None), "not a task"),
    "headers of another type": (altered(headers=["task"]), "not a message"),
    "no properties": (altered(properties=None), "not a message"),
    "no body": (altered(body=None), ""),
    "a kind of another type": (altered(headers__task=["broker.act"]), ""),
    "no kind": (altered(headers__task=None), "not a task"),
    "pickle": (
        altered(
            **{
                "content-type": "application/x-python-serialize",
                "content-encoding": "binary",
                "body": body(pickle.dumps(([], {}, EMBED))),
            }
        ),
        "Refusing to deserialize",
    ),
    "an unknown content type": (altered(**{"content-type": "application/x-nothing"}), ""),
    "a body that is not JSON": (altered(body=body(b"{not json")), ""),
    "a body that is not base64": (altered(body="!!!"), ""),
    "a body of another type": (altered(body=17), ""),
    "a body with too few parts": (altered(body=body([[], {}])), ""),
    "arguments of another type": (altered(body=body([[], "fields", EMBED])), ""),
    "a contract that it breaks": (
        altered(body=body([[], {"file": 7, "what": "sing"}, EMBED])),
        "bad contract",
    ),
    "a field that is missing": (altered(body=body([[], {}, EMBED])), "bad contract"),
    "a field too many": (altered(body=body([[], {"file": "x", "n": 1}, EMBED])), "bad contract"),
    "arguments by position": (altered(body=body([[1], {}, EMBED])), ""),
    "callbacks that are none": (
        lambda file: altered(body=body([[], act(file, "bad"), {**EMBED, "callbacks": "x"}]))(file),
        "its callbacks",
    ),
    "a chain of no signatures": (
        lambda file: altered(body=body([[], act(file, "bad"), {**EMBED, "chain": [1]}]))(file),
        "its chain",
    ),
    "an eta that is no time": (altered(headers__eta="tomorrow"), "invalid message"),
    "an eta of another type": (altered(headers__eta={"at": 1}), "invalid message"),
    "an expiry that is no time": (altered(headers__expires="tomorrow"), ""),
    "limits of another type": (altered(headers__timelimit="long"), "time limits"),
    "a limit of another type": (altered(headers__timelimit=17), ""),
    "limits with too few parts": (altered(headers__timelimit=[1]), "time limits"),
    "limits of other types": (altered(headers__timelimit=["x", {}]), "time limits"),
    "limits of still other types": (altered(headers__timelimit=[None, "x"]), "time limits"),
    "an id of another type": (altered(headers__id={"x": 1}), ""),
    "an id with half a surrogate": (altered(headers__id="\ud800"), "its id"),
    "an id of a megabyte": (altered(headers__id="i" * 1_000_000), "its id"),
    "an id with a line break": (altered(headers__id="a\nCRITICAL all is lost"), "its id"),
    "an id with a null character": (altered(headers__id="a\0b"), "its id"),
    "a kind with half a surrogate": (altered(headers__task="a\udfffb"), "its kind"),
    "a batch with half a surrogate": (altered(headers__millpond={"batch": "\ud800"}), "its batch"),
    "a longer message than is handed out": (
        lambda file: json.dumps(good(file, "bad") | {"body": "x" * 10_000_001}).encode(),
        "too long",
    ),
}

#: Parts that no client of ours writes, and that do no harm: the task runs.
STRANGE: dict[str, Callable[[Path], bytes]] = {
    "our own header of another type": altered(headers__millpond="ours"),
    "our own header with other types in it": altered(
        headers__millpond={"at": "now", "batch": 7, "once": ["x"], "deliveries": "x", "clock_ms": "y"}
    ),
    "a foreign header": altered(headers__x={"deep": [1, {"deeper": None}]}),
    "delivery information of another type": altered(properties__delivery_info="here"),
    "no delivery tag": altered(properties__delivery_tag=None),
    "an eta beyond the calendar": altered(headers__eta="0001-01-01T00:00:00+14:00"),
    "an expiry after the calendar's end": altered(headers__expires="9999-12-31T23:59:59.999999-05:00"),
    "a name with half a surrogate": altered(headers__shadow="\ud800"),
    "half a surrogate in a header": altered(headers__x="\ud800", headers__origin="\ud800"),
    "half a surrogate in what is shown": altered(headers__kwargsrepr="\ud800", headers__root_id="\ud800"),
    "numbers that JSON does not have": altered(headers__x=[float("nan"), float("inf")]),
    "a trace that is none": altered(headers__traceparent=17),
    "retries of another type": altered(headers__retries="many"),
    "an origin of another type": altered(headers__origin=[1]),
    "arguments shown of another type": altered(headers__argsrepr=1, headers__kwargsrepr=["x"]),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_message_is_a_dead_letter(
    worker: OneWorker, module_store: Store, file: Path, eventually: Eventually, what: str
) -> None:
    """A bad message becomes a dead letter, whole and with the reason; its batch and the next task go on."""
    make, reason = BAD[what]
    sent = make(file)
    before = len(list(dead_letters.read_dead_letters(module_store, "default")))
    module_store.client.lpush("default", sent)
    send_acts(module_store, file, "next")
    eventually(lambda: read_names(file, "end") == ["next"])
    eventually(lambda: depth.read_depth(module_store, "default").in_flight == 0)
    *_, letter = dead_letters.read_dead_letters(module_store, "default")
    assert len(list(dead_letters.read_dead_letters(module_store, "default"))) == before + 1
    assert letter.message == sent
    assert letter.detail["error"]
    assert reason in letter.reason or reason in letter.detail["error"]


@pytest.mark.parametrize("what", list(STRANGE))
def test_a_strange_message_runs(
    worker: OneWorker, module_store: Store, file: Path, eventually: Eventually, what: str
) -> None:
    """A header that no run needs may have any type."""
    module_store.client.lpush("default", STRANGE[what](file))
    send_acts(module_store, file, "next")
    eventually(lambda: sorted(read_names(file, "end")) == ["bad", "next"])
    eventually(lambda: depth.read_depth(module_store, "default").in_flight == 0)


def test_a_message_that_expired_before_the_calendar_begins_is_expired(
    worker: OneWorker, module_store: Store, file: Path, eventually: Eventually
) -> None:
    """It does not run, and is no dead letter."""
    before = len(list(dead_letters.read_dead_letters(module_store, "default")))
    module_store.client.lpush("default", altered(headers__expires="0001-01-01T00:00:00+14:00")(file))
    send_acts(module_store, file, "next")
    eventually(lambda: read_names(file, "end") == ["next"])
    eventually(lambda: depth.read_depth(module_store, "default").in_flight == 0)
    assert len(list(dead_letters.read_dead_letters(module_store, "default"))) == before


def test_the_worker_lived_through_it_with_all_its_slots(
    worker: OneWorker, module_store: Store, file: Path, eventually: Eventually
) -> None:
    """One worker process ran through all the tests above, and still runs one task in each of its slots."""
    send_acts(module_store, file, *"0123", what="wait")
    eventually(lambda: sorted(read_names(file)) == ["0", "1", "2", "3"])
    Path(f"{file}.go").touch()
    eventually(lambda: len(read_names(file, "end")) == 4)
    assert worker.process.poll() is None


def test_too_long_a_message_counts_in_its_batch_and_frees_its_name(store: Store) -> None:
    """A message that is too long becomes a dead letter: its batch completes, its unique key is free."""
    batch = record.open_batch(store)
    long = compose(
        "broker.act", {"size": "x" * 16_000_000}, queue="default", sent_at_ms=0, batch=batch, claim="one"
    )
    assert publish(store, [long]) == [Accepted(long.id)]
    record.close_batch(store, batch)
    consumer = ManualConsumer(store, "default")
    assert consumer.fetch() == []
    [letter] = dead_letters.read_dead_letters(store, "default")
    assert (letter.task_id, letter.reason) == (long.id, f"too long: {len(long.payload)} bytes")
    assert record.read_summary(store, batch).failed == 1
    assert record.read_summary(store, batch).complete
    short = compose("broker.act", {}, queue="default", sent_at_ms=0, claim="one")
    assert publish(store, [short]) == [Accepted(short.id)]
