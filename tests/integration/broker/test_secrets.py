"""A secret that is sent shows up nowhere: no log, no event, no remote control, no dead letter's listing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, depth
from millpond.monitor.json_views import dead_letter_json, whole_dead_letter_json
from millpond.tasks.app import celery_app
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.one_worker import OneWorker, settings_for, workers
from tests.harness.worker_events import hear_events

#: A secret with everything that is escaped somewhere; each mark stands in another of its parts.
SECRET = "mark-one-of-it '\"\\ %s {0} é☃\n<script>alert(1)</script> mark-two-of-it \x07\t{{ 7*7 }}"
DEEP = "mark-three-of-it \u2028 \"quoted' \\\\ twice"
MARKS = ("mark-one", "mark-two", "mark-three", "mark-four")
HOW = ("return", "raise", "wrap", "log", "print", "retry")


@pytest.fixture(params=["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["json", pytest.param("plain", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, url: str, executor: str) -> Settings:
    return settings_for(
        url, pool={"concurrency": 2, "executor": executor}, kinds=("secret_kinds",), log_format=request.param
    )


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[OneWorker]:
    with workers(settings, tmp_path) as (running,):
        yield running


@pytest.fixture
def events(settings: Settings, worker: OneWorker, eventually: Eventually) -> Iterator[list[dict[str, Any]]]:
    """Listen to every event of the worker, as Flower does, from its next heartbeat on."""
    seen: list[dict[str, Any]] = []
    with hear_events(settings, seen.append, eventually):
        yield seen


def test_a_hostile_secret_shows_up_nowhere(
    worker: OneWorker,
    settings: Settings,
    events: list[dict[str, Any]],
    url: str,
    plain_store: Store,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Sent by a stock client, by name and by position, returned, raised, logged, printed and retried."""
    stock = Celery(broker=url)
    stock.conf.task_default_queue = "default"
    gate = tmp_path / "gate"
    for how in HOW:
        _send(stock, how)
    _send(stock, "hold", gate=str(gate))
    stock.send_task("test.blurt", args=[SECRET, DEEP], queue="default")
    stock.send_task("test.blurt", kwargs={"how": "return", "seecret": SECRET, "secret": "x"}, queue="default")
    stock.send_task("test.blurt", kwargs={"how": "return", "secret": [SECRET]}, queue="default")
    eventually(lambda: depth.read_depth(plain_store, "default").dead == 6 and _all_ended(plain_store), 60)
    inspect = celery_app(settings).control.inspect(timeout=5, limit=1)
    [active] = eventually(inspect.active).values()
    remote = [active, inspect.reserved(), inspect.query_task(active[0]["id"]), inspect.stats()]
    gate.touch()
    eventually(lambda: sum(event["type"] == "task-succeeded" for event in events) == 4, 20)
    letters = list(dead_letters.read_dead_letters(plain_store, "default"))
    listed = [[dead_letter_json(each), whole_dead_letter_json(each)] for each in letters]
    worker.stop()
    _is_clean("the log", worker.log)
    for event in events:
        _is_clean(event["type"], event)
    _is_clean("remote control", remote)
    _is_clean("the dead letters", listed)
    assert {"task-received", "task-succeeded", "task-failed", "task-retried"} <= {e["type"] for e in events}
    assert "redacted" in json.dumps(listed)
    if settings.log_format == "json":
        _has_facts(worker.log)


def _send(stock: Celery, how: str, **more: Any) -> None:
    fields = {"how": how, "secret": SECRET, "more": [{"deep": DEEP}], "pass": "mark-four", **more}
    stock.send_task("test.blurt", kwargs=fields, queue="default")


def _all_ended(store: Store) -> bool:
    counts = depth.read_depth(store, "default")
    return (counts.ready, counts.delayed, counts.in_flight) == (0, 0, 1)


def _is_clean(where: str, what: Any) -> None:
    text = what if isinstance(what, str) else json.dumps(what, default=str, ensure_ascii=False)
    for mark in MARKS:
        at = text.find(mark)
        assert at < 0, f"{mark} in {where}: …{text[max(0, at - 200) : at + 80]}"


def _has_facts(log: str) -> None:
    """Lines are objects, but for those that Celery prints as it ends; those of a body name task and kind."""
    objects, others = [], set[str]()
    for line in filter(None, log.splitlines()):
        objects.append(line) if line.startswith("{") else others.add(line)
    assert others <= {"worker: Warm shutdown (MainProcess)"}
    lines = [json.loads(line) for line in objects]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    of_body = [line for line in lines if line["logger"] == "secret_kinds"]
    assert of_body
    assert all(line["task"] and line["kind"] == "test.blurt" for line in of_body)
    printed = [line["message"] for line in lines if line["logger"] == "celery.redirected"]
    assert printed == ["logging in with [redacted]"]


def test_the_kind_is_known_to_workers_alone() -> None:
    """The above was redacted where the contract is known; a listing elsewhere shows nothing."""
    assert "test.blurt" not in contracts_by_kind()
