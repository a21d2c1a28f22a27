"""Sending many over HTTP: both directions at once, under backpressure, with an outcome for each line."""

import json
import subprocess
from collections.abc import Callable

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from tests.conftest import Eventually
from tests.harness.gateway_process import NDJSON, GatewayProcess, chunk, ndjson_body, square


def test_outcomes_come_while_the_body_goes_on_and_wait_for_room(
    gateway: GatewayProcess, broker: Store, queue: str
) -> None:
    """Of five lines on a bound of three, three are answered while the body is open; room lets the rest in."""
    limits.change_limits(broker, queue, bound=3)
    connection = gateway.begin_stream()
    connection.send(chunk(ndjson_body(*(square(n, queue=queue) for n in range(5)))))
    answer = connection.getresponse()
    assert [json.loads(answer.readline())["line"] for _ in range(3)] == [1, 2, 3]
    assert depth.read_depth(broker, queue).ready == 3
    limits.change_limits(broker, queue, bound=10)
    assert [json.loads(answer.readline())["line"] for _ in range(2)] == [4, 5]
    connection.send(chunk(ndjson_body(square(6, queue=queue))))
    assert json.loads(answer.readline())["line"] == 6
    connection.send(chunk(""))
    summary = json.loads(answer.readline())["summary"]
    assert summary == {"accepted": 6, "duplicates": 0, "refused": 0, "aborted": None}
    connection.close()


def test_each_line_has_its_outcome(gateway: GatewayProcess, queue: str) -> None:
    """A line that does not fit keeps back none beside it; the outcome names the line, why, and the field."""
    body = ndjson_body(
        square(1, queue=queue, once="one"),
        square(1, queue=queue, once="one"),
        "",
        {"kind": "squares.square", "task": {"n": "x"}},
        {"kind": "no.such", "task": {}},
        "{",
        square(2, queue="nowhere"),
        square(3, queue=queue, filler="x" * 30_000),
        square(4, queue=queue),
    )
    *outcomes, last = gateway.ask("POST", "/send", body, media=NDJSON).lines
    seen = {each["line"]: each.get("error", {}).get("code") or each["duplicate"] for each in outcomes}
    assert seen == {
        1: False,
        2: True,
        4: "bad_contract",
        5: "unknown_kind",
        6: "bad_contract",
        7: "unknown_queue",
        8: "too_large",
        9: False,
    }
    (misfit,) = [each for each in outcomes if each["line"] == 4]
    assert misfit["error"]["fields"][0]["field"] == "n"
    assert last["summary"] == {"accepted": 2, "duplicates": 1, "refused": 5, "aborted": None}


def test_a_fault_of_the_whole_names_the_line_or_its_task(gateway: GatewayProcess) -> None:
    """A validator of a whole contract, options that exclude each other, and a line that is not JSON."""
    body = ndjson_body(
        {"kind": "email.send", "task": {"sender": "a@example.org", "to": "b@example.org"}},
        square(1, for_seconds=5),
        "[1",
        [1],
    )
    *outcomes, _summary = gateway.ask("POST", "/send", body, media=NDJSON).lines
    fields = [[fault["field"] for fault in each["error"]["fields"]] for each in outcomes]
    assert fields == [["task"], ["line"], ["line"], ["line"]]


@pytest.mark.parametrize(
    ("media", "status"), [("Application/X-NDJSON; charset=utf-8", 200), ("application/x-ndjsons", 415)]
)
def test_a_media_type_is_compared_as_http_has_it(
    gateway: GatewayProcess, queue: str, media: str, status: int
) -> None:
    """A media type may be in capitals and have parameters, and is not one that only begins with it."""
    body = ndjson_body(square(1, queue=queue))
    assert gateway.ask("POST", "/send", body, media=media).status == status


def test_curl_streams_many(
    gateway: GatewayProcess, broker: Store, queue: str, program: Callable[[str], str]
) -> None:
    """curl streams a body of unknown length, and prints an outcome for each of its lines."""
    body = ndjson_body(*(square(n, queue=queue, once=f"n{n}") for n in range(900)))
    done = subprocess.run(
        [program("curl"), "-sS", "-T-", "-XPOST", "-H", f"Content-Type: {NDJSON}", f"{gateway.url}/send"],
        input=body.encode(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    *outcomes, last = map(json.loads, done.stdout.splitlines())
    assert [each["line"] for each in outcomes] == list(range(1, 901))
    assert last["summary"]["accepted"] == depth.read_depth(broker, queue).ready == 900


def test_a_queue_without_room_is_an_outcome_when_asked(
    gateway: GatewayProcess, broker: Store, queue: str
) -> None:
    """With `overflow=reject`, or when the wait is over, a line without room has the time to come back."""
    limits.change_limits(broker, queue, bound=1)
    body = ndjson_body(*(square(n, queue=queue) for n in range(3)))
    for query in ("overflow=reject", "wait_seconds=0.1"):
        *outcomes, last = gateway.ask("POST", f"/send?{query}", body, media=NDJSON).lines
        full = [each for each in outcomes if each.get("status") == 429]
        assert len(full) == last["summary"]["refused"] >= 2
        assert all(each["error"]["retry_after"] >= 1 for each in full)


def test_a_stream_is_bounded(gateway: GatewayProcess, queue: str) -> None:
    """A stream that announces too long a body is refused at once; a batch takes so many tasks and no more."""
    assert gateway.ask("POST", "/send", " " * 2_100_000, media=NDJSON).status == 413
    batch = gateway.ask("POST", "/batches").json["id"]
    body = ndjson_body(*(square(n, queue=queue) for n in range(60)))
    *outcomes, last = gateway.ask("POST", f"/batches/{batch}/tasks", body, media=NDJSON).lines
    assert (last["summary"]["accepted"], last["summary"]["refused"]) == (50, 10)
    codes = [each["error"]["code"] for each in outcomes if "error" in each]
    assert codes == ["batch_too_large"] * 10
    one_more = gateway.send(query=f"?queue={queue}&batch={batch}")
    assert (one_more.status, one_more.json["error"]["code"]) == (413, "batch_too_large")


def test_a_repeat_into_a_full_batch_is_a_duplicate(gateway: GatewayProcess, queue: str) -> None:
    """A unique key that a full batch accepted is answered with its first id, alone and in a stream."""
    batch = gateway.ask("POST", "/batches").json["id"]
    first = ndjson_body(*(square(n, queue=queue, once=f"key-{n}") for n in range(50)))
    *accepted, _ = gateway.ask("POST", f"/batches/{batch}/tasks", first, media=NDJSON).lines
    more = ndjson_body(square(50, queue=queue, once="key-50"), square(51, queue=queue))
    *outcomes, last = gateway.ask("POST", f"/batches/{batch}/tasks", first + more, media=NDJSON).lines
    assert last["summary"] == {"accepted": 0, "duplicates": 50, "refused": 2, "aborted": None}
    assert {each["id"] for each in outcomes if "id" in each} == {each["id"] for each in accepted}
    codes = {each["line"]: each["error"]["code"] for each in outcomes if "error" in each}
    assert codes == {51: "batch_too_large", 52: "batch_too_large"}
    repeat = gateway.send(query=f"?queue={queue}&batch={batch}&once=key-7")
    assert (repeat.status, repeat.json["duplicate"], repeat.json["id"]) == (200, True, accepted[7]["id"])
    new = gateway.send(query=f"?queue={queue}&batch={batch}&once=key-50")
    assert (new.status, new.json["error"]["code"]) == (413, "batch_too_large")


def test_repeats_take_no_room_in_a_batch(gateway: GatewayProcess, queue: str) -> None:
    """The new tasks behind many repeats of a stream are accepted as far as the batch has room."""
    batch = gateway.ask("POST", "/batches").json["id"]
    first = ndjson_body(*(square(n, queue=queue, once=f"key-{n}") for n in range(40)))
    gateway.ask("POST", f"/batches/{batch}/tasks", first, media=NDJSON)
    more = ndjson_body(*(square(n, queue=queue, once=f"key-{n}") for n in range(40, 55)))
    *_, last = gateway.ask("POST", f"/batches/{batch}/tasks", first + more + first, media=NDJSON).lines
    assert last["summary"] == {"accepted": 10, "duplicates": 80, "refused": 5, "aborted": None}


def test_slow_streams_leave_room_for_others(
    gateway: GatewayProcess, queue: str, eventually: Eventually
) -> None:
    """With as many idle streams as may be, one more is 503, single tasks go on; one that ends makes room."""
    opened = [gateway.begin_stream() for _ in range(32)]
    for connection in opened:
        connection.send(chunk(ndjson_body(square(1, queue=queue))))
        assert connection.getresponse().status == 200
    body = ndjson_body(square(1, queue=queue))
    refused = gateway.ask("POST", "/send", body, media=NDJSON)
    assert (refused.status, refused.json["error"]["code"]) == (503, "too_many_streams")
    assert int(refused.headers["Retry-After"]) >= 1
    assert gateway.send(query=f"?queue={queue}").status == 202
    for connection in opened:
        connection.sock.close()
        connection.close()
    eventually(lambda: gateway.ask("POST", "/send", body, media=NDJSON).status == 200)
