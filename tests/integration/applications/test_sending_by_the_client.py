"""Millpond's client sends the tasks of a Celery application: by their names, and by their signatures."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from millpond.tasks.settings import Gateway, Settings
from tests.applications.ways import Running, worker
from tests.conftest import Eventually
from tests.harness.gateway_process import run_gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FOLDER = Path(__file__).parent

PROGRAM = """
import json
from celery import chain, chord, group
from celery.result import AsyncResult
from millpond import Call, Client
from orders import add, headers, note, total

seconds, said = 60, {}
with Client() as client:
    value = lambda sent: AsyncResult(sent.id, app=add.app).get(seconds)
    said["signature"] = value(client.send(add.s(2, 2)))
    said["by name"] = value(client.send(Call("orders.add", 2, y=3), queue="default"))
    said["route"] = client.send(note.s("routed")).queue
    first, second = (client.send(add.s(1, 1), once="one", for_=60) for _ in range(2))
    said["once"] = second.duplicate_of == first.id
    both = add.s(1, 1) | add.s(3)
    result = both.freeze()
    client.send(both)
    said["chain"] = result.get(seconds)
    delayed = client.send(add.s(5, 5), delay=0.5, priority=3, id="mine")
    said["delayed"] = [delayed.id, value(delayed)]
    with client.batch("sums", then=note.s("over")) as batch:
        batch.send_many([add.s(n, n) for n in range(3)])
        batch.send(add.s(7, 7), deadline=60)
        sent = batch.send(headers.s())
    said["batch"] = batch.wait(seconds).succeeded
    said["in a batch"] = value(sent)["batch"] == batch.id
    said["results"] = sorted(each.value for each in batch.results() if isinstance(each.value, int))
    for name, item in (("group", group(add.s(1, 1))), ("chord", chord([add.s(1, 1)], total.s()))):
        try:
            client.send(item)
        except TypeError as error:
            said[name] = str(error)[:20]
print(json.dumps(said))
"""


@pytest.fixture
def running(url: str, tmp_path: Path, eventually: Eventually) -> Iterator[Running]:
    more = {"APP_WAY": "app", "APP_NOTES": str(tmp_path / "notes"), "MILLPOND_BROKER_URL": url}
    more |= {"MILLPOND_APP": "orders"}
    queues = ("default", "small")
    with worker("app", "orders", url, tmp_path, eventually, paths=[FOLDER], queues=queues, more=more) as runs:
        yield runs


def test_a_client_sends_signatures_and_calls(running: Running, eventually: Eventually) -> None:
    """The client has Celery's routes, chains and results, and its own keys, deadlines and batches."""
    assert json.loads(running.run(sys.executable, "-c", PROGRAM)) == {
        "signature": 4,
        "by name": 5,
        "route": "small",
        "once": True,
        "chain": 5,
        "delayed": ["mine", 10],
        "batch": 5,
        "in a batch": True,
        "results": [0, 2, 4, 14],
        "group": "a group is many task",
        "chord": "a chord is sent by i",
    }
    notes = running.folder / "notes"
    eventually(lambda: sorted(notes.read_text().split()) == ["over", "routed"], 30)


def test_a_task_that_a_body_sends_with_its_headers_is_of_no_batch(
    running: Running, eventually: Eventually
) -> None:
    """A body that copies its request's headers into another task does not count that task in its batch."""
    program = """
from millpond import Client
from orders import copier
with Client() as client:
    with client.batch() as batch:
        batch.send(copier.s("copied"))
    print(batch.wait(60).succeeded)
"""
    assert running.run(sys.executable, "-c", program).strip() == "1"
    notes = running.folder / "notes"
    eventually(lambda: notes.exists() and notes.read_text().split() == ["copied"], 30)
    summary = running.run(sys.executable, "-m", "millpond", "batches", "--json")
    assert json.loads(summary.splitlines()[0])["succeeded"] == 1


def test_the_scheduler_sends_the_beat_schedule(running: Running, eventually: Eventually) -> None:
    """`millpond scheduler --app` sends each period, by the application's routes, and lists its schedules."""
    env = {**running.env, "APP_BEAT": "1"}
    command = [sys.executable, "-m", "millpond", "scheduler", "--app", "orders"]
    log = (running.folder / "scheduler.log").open("wb")
    with log, subprocess.Popen(command, cwd=running.folder, env=env, stdout=log, stderr=log) as scheduler:
        try:
            notes = running.folder / "notes"
            eventually(lambda: notes.exists() and len(notes.read_text().split()) >= 2, 60)
        finally:
            scheduler.terminate()
    assert scheduler.returncode == 0, (running.folder / "scheduler.log").read_text()
    assert set(notes.read_text().split()) == {"tick"}
    printed = running.run(sys.executable, "-m", "millpond", "schedules", "--json")
    listed = [json.loads(line) for line in printed.splitlines()]
    assert {each["name"]: (each["queue"], each["timing"]) for each in listed if "name" in each} == {
        "tick": ("small", "every 1s"),
        "rare": ("small", "30 3 * * mon UTC"),
    }


def test_the_gateway_sends_an_applications_tasks(
    running: Running, url: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A task goes by name and arguments, on the application's routes; unknown names are 404, bad
    bodies 422. A full batch answers a repeat as a duplicate.
    """
    monkeypatch.setenv("PYTHONPATH", running.env["PYTHONPATH"])
    for name in ("APP_BROKER", "APP_RESULTS"):
        monkeypatch.setenv(name, url)
    sizes = Gateway(max_batch_tasks=1)
    with run_gateway(Settings(broker_url=url, app="orders", gateway=sizes)) as served:
        added = served.ask("POST", "/send/orders.add", {"args": [2], "kwargs": {"y": 5}})
        assert added.status == 202, added.text
        program = f"from orders import app; print(app.AsyncResult({added.json['id']!r}).get(60))"
        assert running.run(sys.executable, "-c", program).strip() == "7"
        assert served.ask("POST", "/send/orders.note", {"args": ["routed"]}).json["queue"] == "small"
        batch = served.ask("POST", "/batches").json["id"]
        into = f"/send/orders.note?batch={batch}&for_seconds=600&once="
        assert served.ask("POST", f"{into}first", {"args": ["first"]}).status == 202
        eventually(lambda: served.ask("POST", f"{into}{uuid4()}", {"args": ["more"]}).status == 413)
        assert served.ask("POST", f"{into}first", {"args": ["first"]}).status == 200
        assert served.ask("POST", "/send/orders.nothing", {"args": []}).status == 404
        assert served.ask("POST", "/send/orders.add", {"x": 1}).status == 422
