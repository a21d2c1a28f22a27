"""Batches and tracked tasks over HTTP, with real workers: results as events, states, progress, cancelling."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from millpond.tasks.settings import Gateway
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.gateway_process import NDJSON, GatewayProcess, ndjson_body, run_gateway, square

POND = {"settings": {"kinds": ("gateway_kinds",)}}
OPEN = ("ready", "running", "unknown")


@pytest.fixture(scope="module")
def gateway(pond: Embedded) -> Iterator[GatewayProcess]:
    """Run a gateway in front of five slots, with a contract of the tests' own."""
    settings = pond.settings.model_copy(update={"gateway": Gateway(contracts=("gateway_kinds",))})
    with run_gateway(settings) as started:
        yield started


def events(gateway: GatewayProcess, batch: str, after: str | None = None, *, most: int = 10_000) -> list[Any]:
    """Read server-sent events as (event, id, data) until the stream ends, or `most` have come."""
    connection, found = gateway.connect(), list[Any]()
    headers = {} if after is None else {"Last-Event-ID": after}
    connection.request("GET", f"/batches/{batch}/results", headers=headers)
    answer = connection.getresponse()
    fields: dict[str, str] = {}
    while len(found) < most and (line := answer.readline().decode()):
        name, colon, value = line.rstrip("\n").partition(": ")
        if colon:
            fields[name] = value
        elif "data" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
            fields = {}
    if most <= len(found) and connection.sock is not None:
        connection.sock.close()
    connection.close()
    return found


def test_a_batch_from_its_opening_to_its_last_result(gateway: GatewayProcess) -> None:
    """Opened, fed by a stream, closed; its results come as events; a second reader goes on where one left."""
    opened = gateway.ask("POST", "/batches?description=squares")
    batch = opened.json["id"]
    assert (opened.status, opened.headers["Location"]) == (201, f"/batches/{batch}")
    fed = gateway.ask("POST", f"/batches/{batch}/tasks", ndjson_body(*map(square, range(40))), media=NDJSON)
    assert fed.lines[-1]["summary"]["accepted"] == 40
    first = events(gateway, batch, most=15)
    assert gateway.ask("POST", f"/batches/{batch}/close").json["closed_at_ms"] is not None
    rest = events(gateway, batch, after=first[-1][1])
    assert rest[-1][0] == "complete"
    assert rest[-1][2]["succeeded"] == rest[-1][2]["sent"] == 40
    values = [data["value"] for event, _, data in first + rest if event == "result"]
    assert sorted(values) == [n * n for n in range(40)]
    end = gateway.ask("GET", f"/batches/{batch}/results", last_event_id=rest[-2][1])
    assert end.status == 204
    assert gateway.ask("GET", f"/batches/{batch}").json["complete"] is True


def test_a_cancelled_batch_takes_and_starts_nothing(gateway: GatewayProcess, eventually: Eventually) -> None:
    """After the answer to a cancel nothing of the batch starts, and it takes nothing more."""
    batch = gateway.ask("POST", "/batches").json["id"]
    lines = [{"kind": "squares.square", "task": {"n": n, "hold_seconds": 0.2}} for n in range(100)]
    gateway.ask("POST", f"/batches/{batch}/tasks", ndjson_body(*lines), media=NDJSON)
    assert gateway.ask("POST", f"/batches/{batch}/cancel").json == {"unacknowledged": []}
    refused = gateway.ask("POST", "/send/squares.square?batch=" + batch, {"n": 1})
    assert (refused.status, refused.json["error"]["code"]) == (409, "batch_closed")
    counts = eventually(
        lambda: (seen := gateway.ask("GET", f"/batches/{batch}").json)["complete"] and seen, timeout=30
    )
    assert counts["succeeded"] + counts["cancelled"] == 100
    assert counts["cancelled"] >= 80


def test_a_tracked_task_tells_how_it_ended(gateway: GatewayProcess, eventually: Eventually) -> None:
    """A task sent with `track` has a state and a value; one that was not is not known."""
    sent = gateway.send(12, "?track=true")
    where = sent.headers["Location"]
    ended = eventually(lambda: (seen := gateway.ask("GET", where).json)["state"] not in OPEN and seen)
    assert (ended["state"], ended["value"], ended["kind"]) == ("succeeded", 144, "squares.square")
    untracked = f"/tasks/{gateway.send(12).json['id']}"
    eventually(lambda: gateway.ask("GET", untracked).status == 404)
    again = gateway.send(12, f"?track=true&id={sent.json['id']}")
    assert (again.status, again.json["error"]["code"]) == (409, "id_in_use")


def test_a_running_task_shows_its_progress_and_can_be_cancelled(
    gateway: GatewayProcess, eventually: Eventually
) -> None:
    """How far a task got is there while it runs; cancelled, it stops at its checkpoint and says so."""
    sent = gateway.ask("POST", "/send/test.steps?track=true", {"name": "one"})
    where = sent.headers["Location"]
    seen = eventually(lambda: (seen := gateway.ask("GET", where).json)["progress"] and seen)
    assert (seen["state"], seen["progress"]) == ("running", {"done": 1, "total": 2})
    assert gateway.ask("POST", f"{where}/cancel").json == {"unacknowledged": []}
    eventually(lambda: gateway.ask("GET", where).json["state"] == "cancelled")


def test_a_strict_contract_takes_a_date_from_a_body_and_from_a_line(gateway: GatewayProcess) -> None:
    """JSON has dates as texts alone; the worker takes them too; a text that is no date is 422."""
    batch = gateway.ask("POST", "/batches").json["id"]
    for day, status in (("2026-11-29", 202), ("tomorrow", 422)):
        task = {"day": day}
        answer = gateway.ask("POST", f"/send/test.strict?batch={batch}", json.dumps(task))
        assert answer.status == status, answer.text
        line = json.dumps({"kind": "test.strict", "task": task}) + "\n"
        fed = gateway.ask("POST", f"/batches/{batch}/tasks", line, media=NDJSON)
        assert fed.lines[-1]["summary"]["refused"] == (status == 422)
    gateway.ask("POST", f"/batches/{batch}/close")
    results = [data for event, _, data in events(gateway, batch) if event == "result"]
    assert [each["value"] for each in results] == ["2026-11-29"] * 2
