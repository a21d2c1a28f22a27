"""The gateway's JSON is JSON: no NaN comes in, and none goes out."""

import json
from typing import Any
from uuid import uuid4

import pytest

from millpond.broker.batches import record, task_result
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.keys import batch_key
from tests.harness.gateway_process import NDJSON, GatewayProcess

REFUSED = ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', '"Infinity"']


@pytest.mark.parametrize("number", REFUSED)
def test_no_nan_comes_in(gateway: GatewayProcess, broker: Store, queue: str, number: str) -> None:
    """A literal that is not JSON, a number too large and the text "nan" are 422, alone and in a stream."""
    task = f'{{"n": 1, "hold_seconds": {number}}}'
    answer = gateway.ask("POST", f"/send/squares.square?queue={queue}", task)
    assert (answer.status, answer.json["error"]["code"]) == (422, "bad_contract")
    assert "NaN and infinities are not JSON" in answer.text
    line = f'{{"kind": "squares.square", "queue": "{queue}", "task": {task}}}\n'
    *_, refused, summary = gateway.ask("POST", "/send", line, media=NDJSON).lines
    assert (refused["status"], refused["error"]["code"]) == (422, "bad_contract")
    assert summary["summary"]["refused"] == 1
    assert depth.read_depth(broker, queue).ready == 0


@pytest.mark.parametrize("value", [float("nan"), {"a": [1.5, float("-inf")]}])
def test_no_nan_goes_out(gateway: GatewayProcess, broker: Store, value: Any) -> None:
    """A result is null where JSON has no number for it: the events of a batch, and a task."""
    id = str(uuid4())
    assert task_result.open_record(broker, id, "squares.square")
    batch = record.open_batch(broker)
    for name in (batch, task_result.record_id(id)):
        end = {"id": id, "state": "succeeded", "detail": json.dumps({"value": value})}
        broker.client.xadd(f"{batch_key(name, broker.prefix)}:results", end)
        broker.client.hset(batch_key(name, broker.prefix), mapping={"sent": 1, "settled": 1, "succeeded": 1})
    record.close_batch(broker, batch)
    expected = None if isinstance(value, float) else {"a": [1.5, None]}
    events = gateway.ask("GET", f"/batches/{batch}/results").text
    [data] = [line.removeprefix("data: ") for line in events.splitlines() if '"state"' in line]
    assert json.loads(data, parse_constant=pytest.fail)["value"] == expected
    task = gateway.ask("GET", f"/tasks/{id}")
    assert task.status == 200
    assert json.loads(task.text, parse_constant=pytest.fail)["value"] == expected
